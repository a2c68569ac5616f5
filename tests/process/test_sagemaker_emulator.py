"""Endpoints on the local SageMaker: their life, what goes wrong, and the chapter's line by the AWS CLI."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.process.container_room import PATIENCE
from tests.process.emulator_room import LIVE, REGION, Room, children, gone, log_of, refused, role_of

from likewise.bundles.archive import pack
from likewise.bundles.open import Bundle
from likewise.targets.sagemaker.emulator import ProcessRunner, rehearsal

pytestmark = pytest.mark.slow
pytest_plugins = ("tests.process.emulator_fixtures",)


def test_it_says_loudly_that_no_container_runs(room: Room) -> None:
    assert room.emulator.caution is not None
    assert "no container is run" in room.emulator.caution


def test_a_request_goes_to_the_container_and_back(room: Room, bundles: dict[str, Bundle]) -> None:
    answer = room.ask(LIVE, CustomAttributes="trace=7", InferenceId="abc", Accept="application/json")
    assert answer["Body"] == b'{"predictions":["1:A"]}'
    assert answer["CustomAttributes"] == "trace=7"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["ContentType"] == "application/json"


def test_a_clients_error_is_a_model_error_with_the_containers_own(room: Room) -> None:
    with pytest.raises(ClientError) as failed:
        room.ask(LIVE, ContentType="application/x-recordio-protobuf")
    said = failed.value.response
    assert said["Error"]["Code"] == "ModelError"
    assert said["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert said["OriginalStatusCode"] == 415
    assert json.loads(said["OriginalMessage"])["remedy"]
    assert "client error (415)" in said["Message"]


def test_what_is_more_than_6_mb_does_not_reach_it(room: Room) -> None:
    most = 6 * 1024 * 1024
    room.ask(LIVE, b'{"inputs": ["' + b"a" * (most - 16) + b'"]}')
    with refused("ValidationError"):
        room.ask(LIVE, b"a" * (most + 1))


def test_an_endpoint_that_is_not_there(room: Room) -> None:
    with refused("ValidationError.*nowhere of account .* not found"):
        room.ask("nowhere")
    with refused('ValidationException.*Could not find endpoint "arn:aws:sagemaker:us-east-1:.*endpoint/nowhere"'):
        room.described("nowhere")


def test_an_answer_that_takes_too_long(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    images = {"upper:1": {"LIKEWISE_BUNDLE": str(bundles["1"].path), "LIKEWISE_TRUST": "true"}}
    with rehearsal(ProcessRunner(images), most_wait_s=PATIENCE, answer_s=1) as emulator:
        slow = Room(emulator, "", tmp_path)
        slow.role = role_of(slow, "deployer")
        slow.model("slow")
        slow.config("slow")
        assert slow.endpoint("slow")["EndpointStatus"] == "InService"
        with pytest.raises(ClientError) as failed:
            slow.ask("slow", json.dumps({"inputs": [f"gate {tmp_path / 'gate'}"]}).encode())
        (tmp_path / "gate").touch()
        assert failed.value.response["OriginalStatusCode"] == 0
        assert "timed out" in failed.value.response["OriginalMessage"]


def test_an_update_is_all_at_once_and_the_old_one_answers_until_then(room: Room) -> None:
    room.model("first")
    room.model("second", "upper:2")
    room.config("changing", "first")
    room.config("changed", "second")
    room.endpoint("changing")
    over, wrong, seen = threading.Event(), [], set()

    def load() -> None:
        while not over.is_set():
            try:
                seen.add(room.ask("changing")["Body"])
            except ClientError as error:
                wrong.append(error)

    loading = threading.Thread(target=load)
    loading.start()
    policy = {
        "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}}
    }
    room.client("sagemaker").update_endpoint(
        EndpointName="changing", EndpointConfigName="changed", DeploymentConfig=policy
    )
    assert room.described("changing")["EndpointStatus"] == "Updating"
    with refused("Cannot update in-progress endpoint"):
        room.client("sagemaker").delete_endpoint(EndpointName="changing")
    said = room.settled("changing")
    over.set()
    loading.join()
    assert (said["EndpointConfigName"], said["LastDeploymentConfig"]) == ("changed", policy)
    assert room.ask("changing")["Body"] == b'{"predictions":["2:A"]}'
    assert wrong == []
    assert seen >= {b'{"predictions":["1:A"]}'}
    gone(room, "changing")


def test_an_update_wants_the_standing_configuration_too(room: Room) -> None:
    sagemaker = room.client("sagemaker")
    kept = sagemaker.describe_endpoint_config(EndpointConfigName=LIVE)
    room.config("newer", LIVE)
    sagemaker.delete_endpoint_config(EndpointConfigName=LIVE)
    with refused(f"Could not find endpoint configuration .*{LIVE}"):
        sagemaker.update_endpoint(EndpointName=LIVE, EndpointConfigName="newer")
    sagemaker.create_endpoint_config(EndpointConfigName=LIVE, ProductionVariants=kept["ProductionVariants"])


def test_an_update_that_fails_leaves_the_old_one_in_service(room: Room) -> None:
    room.model("worse", "missing:1")
    room.config("worse")
    room.client("sagemaker").update_endpoint(EndpointName=LIVE, EndpointConfigName="worse")
    said = room.settled(LIVE)
    assert (said["EndpointStatus"], said["EndpointConfigName"]) == ("InService", LIVE)
    assert "missing:1" in said["FailureReason"]
    assert room.ask(LIVE)["Body"] == b'{"predictions":["1:A"]}'


def test_a_deleted_endpoint_leaves_no_process_and_keeps_its_log(room: Room) -> None:
    room.model("short")
    room.config("short")
    room.endpoint("short")
    before = children()
    gone(room, "short")
    assert len(children()) == len(before) - 1
    sagemaker = room.client("sagemaker")
    sagemaker.delete_endpoint_config(EndpointConfigName="short")
    sagemaker.delete_model(ModelName="short")
    with refused("Could not find model"):
        sagemaker.describe_model(ModelName="short")
    assert any("ready at" in line for line in log_of(room, "short"))


def failing(room: Room, name: str, **container: Any) -> str:
    room.model(name, **container)
    room.config(name)
    said = room.endpoint(name)
    assert said["EndpointStatus"] == "Failed"
    assert children_of(room) == 1
    with refused("is Failed"):
        room.ask(name)
    gone(room, name)
    return str(said["FailureReason"])


def children_of(room: Room) -> int:
    """Containers that run; the one is LIVE's."""
    return len(children())


def test_an_image_that_is_not_there(room: Room) -> None:
    assert "The image missing:1" in failing(room, "no-image", image="missing:1")


def test_a_container_that_ends_tells_its_last_lines(room: Room) -> None:
    reason = failing(room, "ends", Environment={"LIKEWISE_DEADLINE_S": "soon"})
    assert "production variant AllTraffic did not pass the ping health check" in reason
    assert "exited with code 2" in reason
    assert "LIKEWISE_DEADLINE_S" in reason
    assert any("WRONG_USAGE" in line for line in log_of(room, "ends"))


def test_a_container_that_never_answers_its_pings(tmp_path: Path) -> None:
    silent = (sys.executable, "-c", "import time; print('here I am', flush=True); time.sleep(600)")
    with rehearsal(ProcessRunner({"silent:1": {}}, silent), most_wait_s=1) as emulator:
        room = Room(emulator, "", tmp_path)
        room.role = role_of(room, "deployer")
        room.model("silent", "silent:1")
        room.config("silent")
        said = room.endpoint("silent")
        assert said["EndpointStatus"] == "Failed"
        assert "did not pass the ping health check" in said["FailureReason"]
        assert log_of(room, "silent") == ["here I am"]


def test_a_role_that_is_not_there_or_trusts_somebody_else(room: Room) -> None:
    sagemaker = room.client("sagemaker")
    other = role_of(room, "lambda", "lambda.amazonaws.com")
    for role in (room.role.replace("deployer", "nobody"), other):
        with refused("ValidationException.*Could not assume role"):
            sagemaker.create_model(ModelName="x", ExecutionRoleArn=role, PrimaryContainer={"Image": "upper:1"})


def test_a_role_that_vanished_between_model_and_endpoint(room: Room) -> None:
    kept, room.role = room.role, role_of(room, "passing")
    room.model("passing")
    room.role = kept
    room.client("iam").delete_role(RoleName="passing")
    room.config("passing")
    said = room.endpoint("passing")
    assert (said["EndpointStatus"], "Could not assume role" in said["FailureReason"]) == ("Failed", True)
    gone(room, "passing")


def test_model_data_that_is_missing_or_elsewhere(room: Room) -> None:
    with refused("Could not access model data at s3://rows/none.tar.gz"):
        room.model("x", "bare:1", ModelDataUrl="s3://rows/none.tar.gz")
    west = {"LocationConstraint": "eu-west-1"}
    room.client("s3").create_bucket(Bucket="far-away", CreateBucketConfiguration=west)
    room.client("s3").put_object(Bucket="far-away", Key="m.tar.gz", Body=b"")
    with refused("located in us-east-1"):
        room.model("x", "bare:1", ModelDataUrl="s3://far-away/m.tar.gz")


def test_model_data_that_cannot_be_unpacked(room: Room) -> None:
    url = room.put("broken.tar.gz", b"no archive")
    assert "Failed to download model data" in failing(room, "broken", image="bare:1", ModelDataUrl=url)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
    url = room.put("climbs.tar.gz", stream.getvalue())
    assert "Failed to download model data" in failing(room, "climbs", image="bare:1", ModelDataUrl=url)


def test_a_bundle_as_model_data(room: Room, bundles: dict[str, Bundle]) -> None:
    url = room.put("model.tar.gz", pack(bundles["2"], room.folder / "model.tar.gz").read_bytes())
    room.model("packed", "bare:1", ModelDataUrl=url)
    room.config("packed")
    assert room.endpoint("packed")["EndpointStatus"] == "InService"
    assert room.ask("packed")["Body"] == b'{"predictions":["2:A"]}'
    gone(room, "packed")


def aws_cli() -> str:
    """The AWS CLI, in an environment of its own where the tests' has none."""
    found = os.environ.get("LIKEWISE_TEST_AWS") or shutil.which("aws")
    if found is None:
        pytest.skip(
            "no AWS CLI is here, so nobody ran the chapter's line: python3 -m venv F && F/bin/pip install awscli"
        )
    return found


def test_the_chapters_line(room: Room, tmp_path: Path) -> None:
    body = '{"columns":["text"], "data": [["This is the best movie we saw."], ["What a movie!"]]}'
    command = [aws_cli(), "sagemaker-runtime", "invoke-endpoint", "--endpoint-name", LIVE]
    command += ["--content-type", "application/json; format=pandas-split", "--body", body, "response.json"]
    command += ["--endpoint-url", room.emulator.url]
    environment: Mapping[str, str] = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["InvokedProductionVariant"] == "AllTraffic"
    answer = json.loads((tmp_path / "response.json").read_text())
    assert answer == ["1:THIS IS THE BEST MOVIE WE SAW.", "1:WHAT A MOVIE!"]
