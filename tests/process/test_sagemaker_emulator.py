"""Endpoints on the local SageMaker: their life, what goes wrong, and the chapter's line by the AWS CLI."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.support.aws.account import ENVIRONMENT, Account
from tests.support.aws.api import LIVE, Api, refused
from tests.support.aws.images import EMPTY, Images, containers
from tests.support.aws.processes import ProcessRunner
from tests.support.machine import cannot_test
from tests.support.processes import run
from tests.support.waiting import until

from likewise.bundles.archive import pack
from likewise.bundles.open import Bundle
from likewise.targets.sagemaker.emulator import Emulator, rehearsal

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sagemaker")]
pytest_plugins = ("tests.support.aws.fixtures",)


@contextmanager
def another(runner: Any, **waits: float) -> Iterator[Api]:
    """An emulator of the test's own; waits: how long it waits for containers."""
    with rehearsal(Emulator(runner, **waits)) as emulator:  # type: ignore[arg-type]
        yield Api(Account(emulator, "us-east-1"))


def test_a_request_goes_to_the_container_and_back(api: Api) -> None:
    answer = api.ask(LIVE, CustomAttributes="trace=7", InferenceId="abc", Accept="application/json")
    assert answer["Body"] == b'{"predictions":["1:A"]}'
    assert answer["CustomAttributes"] == "trace=7"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["ContentType"] == "application/json"


def test_a_clients_error_is_a_model_error_with_the_containers_own(api: Api) -> None:
    with pytest.raises(ClientError) as failed:
        api.ask(LIVE, ContentType="application/x-recordio-protobuf")
    said = failed.value.response
    assert said["Error"]["Code"] == "ModelError"
    assert said["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert said["OriginalStatusCode"] == 415
    assert json.loads(said["OriginalMessage"])["remedy"]
    assert "client error (415)" in said["Message"]


def test_what_is_more_than_6_mb_does_not_reach_it(api: Api) -> None:
    most = 6 * 1024 * 1024
    api.ask(LIVE, b'{"inputs": ["' + b"a" * (most - 16) + b'"]}')
    with refused("ValidationError"):
        api.ask(LIVE, b"a" * (most + 1))


def test_an_endpoint_that_is_not_there(api: Api) -> None:
    with refused("ValidationError.*nowhere of account .* not found"):
        api.ask("nowhere")
    with refused('ValidationException.*Could not find endpoint "arn:aws:sagemaker:us-east-1:.*endpoint/nowhere"'):
        api.described("nowhere")


def test_an_answer_that_takes_too_long() -> None:
    with another(Images({}), answer_s=0.5) as api:
        api.model("slow", "one:1", Environment={"HOW": "never answers"})
        api.config("slow")
        assert api.endpoint("slow")["EndpointStatus"] == "InService"
        with pytest.raises(ClientError) as failed:
            api.ask("slow")
        assert failed.value.response["OriginalStatusCode"] == 0
        assert "timed out" in failed.value.response["OriginalMessage"]


def test_an_update_is_all_at_once_and_the_old_one_answers_until_then(api: Api) -> None:
    api.model("first")
    api.model("second", "upper:2")
    api.config("changing", "first")
    api.config("changed", "second")
    api.endpoint("changing")
    over, wrong, seen = threading.Event(), [], set()

    def load() -> None:
        while not over.is_set():
            try:
                seen.add(api.ask("changing")["Body"])
            except ClientError as error:
                wrong.append(error)

    loading = threading.Thread(target=load)
    loading.start()
    policy = {
        "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}}
    }
    api.client("sagemaker").update_endpoint(
        EndpointName="changing", EndpointConfigName="changed", DeploymentConfig=policy
    )
    assert api.described("changing")["EndpointStatus"] == "Updating"
    with refused("Cannot update in-progress endpoint"):
        api.client("sagemaker").delete_endpoint(EndpointName="changing")
    said = api.settled("changing")
    over.set()
    loading.join()
    assert (said["EndpointConfigName"], said["LastDeploymentConfig"]) == ("changed", policy)
    assert api.ask("changing")["Body"] == b'{"predictions":["2:A"]}'
    assert wrong == []
    assert seen >= {b'{"predictions":["1:A"]}'}
    api.delete("changing")


def test_an_update_wants_the_standing_configuration_too(api: Api) -> None:
    sagemaker = api.client("sagemaker")
    kept = sagemaker.describe_endpoint_config(EndpointConfigName=LIVE)
    api.config("newer", LIVE)
    sagemaker.delete_endpoint_config(EndpointConfigName=LIVE)
    with refused(f"Could not find endpoint configuration .*{LIVE}"):
        sagemaker.update_endpoint(EndpointName=LIVE, EndpointConfigName="newer")
    sagemaker.create_endpoint_config(EndpointConfigName=LIVE, ProductionVariants=kept["ProductionVariants"])


def test_an_update_that_fails_leaves_the_old_one_in_service(api: Api) -> None:
    api.model("worse", "missing:1")
    api.config("worse")
    api.client("sagemaker").update_endpoint(EndpointName=LIVE, EndpointConfigName="worse")
    said = api.settled(LIVE)
    assert (said["EndpointStatus"], said["EndpointConfigName"]) == ("InService", LIVE)
    assert "missing:1" in said["FailureReason"]
    assert api.ask(LIVE)["Body"] == b'{"predictions":["1:A"]}'


def test_a_deleted_endpoint_leaves_no_process_and_keeps_its_log(api: Api) -> None:
    api.model("short")
    api.config("short")
    api.endpoint("short")
    until(lambda: any("ready at" in line for line in api.log("short")))  # it logs that a moment after it answers
    before = containers()
    api.delete("short")
    assert containers() == before - 1
    sagemaker = api.client("sagemaker")
    sagemaker.delete_endpoint_config(EndpointConfigName="short")
    sagemaker.delete_model(ModelName="short")
    with refused("Could not find model"):
        sagemaker.describe_model(ModelName="short")
    assert any("ready at" in line for line in api.log("short"))


def failing(api: Api, name: str, **container: Any) -> str:
    """The reason why an endpoint of this container fails."""
    api.model(name, **container)
    api.config(name)
    before = containers()
    answer = api.endpoint(name)
    assert answer["EndpointStatus"] == "Failed"
    assert containers() == before
    with refused("is Failed"):
        api.ask(name)
    api.delete(name)
    return str(answer["FailureReason"])


def test_an_image_that_is_not_there(api: Api) -> None:
    assert "The image missing:1" in failing(api, "no-image", image="missing:1")


def test_a_container_that_ends_tells_its_last_lines(api: Api) -> None:
    reason = failing(api, "ends", Environment={"LIKEWISE_DEADLINE_S": "soon"})
    assert "production variant AllTraffic did not pass the ping health check" in reason
    assert "exited with code 2" in reason
    assert "LIKEWISE_DEADLINE_S" in reason
    assert any("WRONG_USAGE" in line for line in api.log("ends"))


def test_a_container_that_never_answers_its_pings() -> None:
    silent = (sys.executable, "-c", "import time; print('here I am', flush=True); time.sleep(600)")
    with another(ProcessRunner({"silent:1": {}}, silent), most_wait_s=1) as api:
        api.model("silent", "silent:1")
        api.config("silent")
        answer = api.endpoint("silent")
        assert answer["EndpointStatus"] == "Failed"
        assert "did not pass the ping health check" in answer["FailureReason"]
        assert api.log("silent") == ["here I am"]


def test_a_role_that_is_not_there_or_trusts_somebody_else(api: Api) -> None:
    sagemaker = api.client("sagemaker")
    other = api.account.make_role("lambda", "lambda.amazonaws.com")
    for role in (api.role.replace("serving", "nobody"), other):
        with refused("ValidationException.*Could not assume role"):
            sagemaker.create_model(ModelName="x", ExecutionRoleArn=role, PrimaryContainer={"Image": "upper:1"})


def test_a_role_that_vanished_between_model_and_endpoint(api: Api) -> None:
    kept, api.role = api.role, api.account.make_role("passing")
    api.model("passing")
    api.role = kept
    api.client("iam").delete_role(RoleName="passing")
    api.config("passing")
    said = api.endpoint("passing")
    assert (said["EndpointStatus"], "Could not assume role" in said["FailureReason"]) == ("Failed", True)
    api.delete("passing")


def test_model_data_that_is_missing_or_elsewhere(api: Api) -> None:
    with refused("Could not access model data at s3://rows/none.tar.gz"):
        api.model("x", EMPTY, ModelDataUrl="s3://rows/none.tar.gz")
    west = {"LocationConstraint": "us-west-1"}
    api.client("s3").create_bucket(Bucket="far-away", CreateBucketConfiguration=west)
    api.client("s3").put_object(Bucket="far-away", Key="m.tar.gz", Body=b"")
    with refused("located in us-east-1"):
        api.model("x", EMPTY, ModelDataUrl="s3://far-away/m.tar.gz")


def test_model_data_that_cannot_be_unpacked(api: Api) -> None:
    url = api.put("broken.tar.gz", b"no archive")
    assert "Failed to download model data" in failing(api, "broken", image=EMPTY, ModelDataUrl=url)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
    url = api.put("climbs.tar.gz", stream.getvalue())
    assert "Failed to download model data" in failing(api, "climbs", image=EMPTY, ModelDataUrl=url)


def test_a_bundle_as_model_data(api: Api, upper_bundles: dict[str, Bundle], tmp_path: Path) -> None:
    url = api.put("model.tar.gz", pack(upper_bundles["2"], tmp_path / "model.tar.gz").read_bytes())
    api.model("packed", EMPTY, ModelDataUrl=url, Environment={"LIKEWISE_TRUST": "true"})
    api.config("packed")
    assert api.endpoint("packed")["EndpointStatus"] == "InService"
    assert api.ask("packed")["Body"] == b'{"predictions":["2:A"]}'
    api.delete("packed")


def aws_cli() -> str:
    """The AWS CLI, in an environment of its own where the tests' has none."""
    found = os.environ.get("LIKEWISE_TEST_AWS") or shutil.which("aws")
    if found is None:
        cannot_test("sagemaker", "the AWS CLI is not installed (python3 -m venv DIR && DIR/bin/pip install awscli)")
    return found


def test_the_chapters_line(api: Api, tmp_path: Path) -> None:
    body = '{"columns":["text"], "data": [["This is the best movie we saw."], ["What a movie!"]]}'
    command = [aws_cli(), "sagemaker-runtime", "invoke-endpoint", "--endpoint-name", LIVE]
    command += ["--content-type", "application/json; format=pandas-split", "--body", body, "response.json"]
    command += ["--endpoint-url", api.emulator.url]
    environment = {**os.environ, **ENVIRONMENT, "AWS_DEFAULT_REGION": api.account.region}
    done = run(command, cwd=tmp_path, env=environment)
    assert json.loads(done.stdout)["InvokedProductionVariant"] == "AllTraffic"
    answer = json.loads((tmp_path / "response.json").read_text())
    assert answer == ["1:THIS IS THE BEST MOVIE WE SAW.", "1:WHAT A MOVIE!"]
