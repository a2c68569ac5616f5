#!/usr/bin/env bash
# Deploys to SageMaker in six steps; README.md in this folder lists MLflow's command for each.
#
#   likewise rehearse sagemaker:/eu-west-1 -- ./six_steps.sh MODEL    on this machine: no AWS account, no costs
#   ./six_steps.sh MODEL                                              on AWS, with your AWS credentials
#
# Arguments after MODEL are passed to `likewise image build`. Environment variables: NAME, AWS_REGION, EXECUTION_ROLE_ARN
# (default: the role of your credentials), PORT, PROGRAM=podman, NETWORK=host if containers cannot have their own network.
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

step '1 and 2: build an image with the environment and the model, without a daemon'
likewise image build "$model" --tag "$name:1" "$@"

step '3: run the same image on this machine'
container=$(likewise image run "$name:1" --port "$port" --detach --with "$program" \
    ${NETWORK:+--network "$NETWORK"} --json | field container)
stop() { "$program" stop "$container" && "$program" rm "$container"; } >/dev/null
trap stop EXIT
curl --fail-with-body --silent --show-error "http://127.0.0.1:$port/invocations" -H "Content-Type: $split" -d "$body"
echo
stop
trap - EXIT

step '4: push it to ECR; the repository is created if it does not exist'
image=$(likewise image push "$name:1" "ecr:/$region/$name" --json | field pinned)
echo "$image"

step '5: create an endpoint, which costs money until it is deleted'
likewise deploy "$model" --to "sagemaker:/$region" --name "$name" -C image_url="$image" \
    ${EXECUTION_ROLE_ARN:+-C execution_role_arn="$EXECUTION_ROLE_ARN"}
remove() { likewise delete "$name" --to "sagemaker:/$region"; }
trap remove EXIT

step '6: send requests with Likewise and with the AWS CLI'
likewise predict "$name" "$body" --to "sagemaker:/$region"
if command -v aws >/dev/null; then
    folder=$(mktemp -d)
    printf %s "$body" >"$folder/request.json"
    aws sagemaker-runtime invoke-endpoint --endpoint-name "$name" --content-type "$split" \
        --body "fileb://$folder/request.json" "$folder/response.json" # `fileb://` works in versions 1 and 2 of the CLI
    cat "$folder/response.json"
    rm -r "$folder"
fi

step 'clean up'
