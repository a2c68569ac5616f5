#!/usr/bin/env bash
# The chapter's six steps to SageMaker; README.md beside this has MLflow's command for each.
#
#   likewise rehearse sagemaker:/eu-west-1 -- ./six_steps.sh MODEL    on this machine: no account, nothing to pay
#   ./six_steps.sh MODEL                                              on AWS, as whoever is logged in there
#
# What comes after MODEL goes to `likewise image build`. Of the environment: NAME, AWS_REGION, EXECUTION_ROLE_ARN (by
# default the role that is logged in), PORT, PROGRAM=podman, NETWORK=host where containers can have no network of their own.
set -euo pipefail

model=${1:?name a model: ./six_steps.sh runs:/…/inference_pipeline_model}
shift
name=${NAME:-dl-sentiment-model}
region=${AWS_REGION:?set AWS_REGION}
port=${PORT:-5555}
program=${PROGRAM:-docker}
body='{"columns": ["text"], "data": [["This is the best movie we saw."], ["What a movie!"]]}'
split='application/json; format=pandas-split'
step() { printf '\n# %s\n' "$*" >&2; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

step '1 and 2: an image that holds the environment and the model, made without a daemon'
likewise image build "$model" --tag "$name:1" "$@"

step '3: the same image answers on this machine'
container=$(likewise image run "$name:1" --port "$port" --detach --with "$program" \
    ${NETWORK:+--network "$NETWORK"} --json | field container)
stop() { "$program" stop "$container" && "$program" rm "$container"; } >/dev/null
trap stop EXIT
curl --fail-with-body --silent --show-error "http://127.0.0.1:$port/invocations" -H "Content-Type: $split" -d "$body"
echo
stop
trap - EXIT

step '4: into ECR; the repository is made where it is missing'
image=$(likewise image push "$name:1" "ecr:/$region/$name" --json | field pinned)
echo "$image"

step '5: an endpoint, which costs until it is deleted'
likewise deploy "$model" --to "sagemaker:/$region" --name "$name" -C image_url="$image" \
    ${EXECUTION_ROLE_ARN:+-C execution_role_arn="$EXECUTION_ROLE_ARN"}
remove() { likewise delete "$name" --to "sagemaker:/$region"; }
trap remove EXIT

step '6: asked, by Likewise and by the AWS CLI'
likewise predict "$name" "$body" --to "sagemaker:/$region"
if command -v aws >/dev/null; then
    folder=$(mktemp -d)
    printf %s "$body" >"$folder/request.json"
    aws sagemaker-runtime invoke-endpoint --endpoint-name "$name" --content-type "$split" \
        --body "fileb://$folder/request.json" "$folder/response.json" # versions 1 and 2 read `fileb://` alike
    cat "$folder/response.json"
    rm -r "$folder"
fi

step 'and away with it'
