"""The local SageMaker, asked by boto3 and by the AWS CLI; processes stand in for containers."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from hypothesis import given
from hypothesis import strategies as st
from tests.process.container_room import PATIENCE, until, upper_bundle

from likewise.bundles.archive import pack
from likewise.bundles.open import Bundle
from likewise.targets.sagemaker.emulator import Call, Emulator, Fault, ProcessRunner, rehearsal
from likewise.targets.sagemaker.emulator.shapes import compiled, problems, service

pytestmark = pytest.mark.slow
REGION = "us-east-1"
LIVE = "dl-sentiment-model"
TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]}
INSTANCE = {"InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}


@dataclass
class Room:
    """An emulator with two images of one model, a role, a bucket, and an endpoint in service: LIVE."""

    emulator: Emulator
    role: str
    folder: Path

    def client(self, name: str, **options: Any) -> Any:
        config = Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}, **options)
        session = boto3.Session("test", "test", region_name=REGION)
        return session.client(name, endpoint_url=self.emulator.url, config=config)

    def model(self, name: str, image: str = "upper:1", **more: Any) -> None:
        container = {"Image": image, **more}
        self.client("sagemaker").create_model(ModelName=name, ExecutionRoleArn=self.role, PrimaryContainer=container)

    def config(self, name: str, model: str | None = None, **more: Any) -> None:
        variant = {"VariantName": "AllTraffic", "ModelName": model or name, **INSTANCE}
        self.client("sagemaker").create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **more)

    def endpoint(self, name: str) -> dict[str, Any]:
        """Created of the configuration of the same name; as it stands when it is decided."""
        self.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=name)
        return self.settled(name)

    def settled(self, name: str) -> dict[str, Any]:
        until(lambda: self.described(name)["EndpointStatus"] in ("InService", "Failed"))
        return self.described(name)

    def described(self, name: str) -> dict[str, Any]:
        said: dict[str, Any] = self.client("sagemaker").describe_endpoint(EndpointName=name)
        return said

    def ask(self, name: str, body: bytes = b'{"inputs": ["a"]}', **more: Any) -> dict[str, Any]:
        more = {"ContentType": "application/json", **more}
        said: dict[str, Any] = self.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=body, **more)
        return {**said, "Body": said["Body"].read()}

    def put(self, key: str, body: bytes) -> str:
        self.client("s3").put_object(Bucket="rows", Key=key, Body=body)
        return f"s3://rows/{key}"

    def get(self, uri: str) -> bytes:
        body: bytes = self.client("s3").get_object(Bucket="rows", Key=uri.removeprefix("s3://rows/"))["Body"].read()
        return body


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return {mark: upper_bundle(folder / mark, f"{mark}:") for mark in ("1", "2")}


@pytest.fixture(scope="module")
def room(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    images = {
        "upper:1": {"LIKEWISE_BUNDLE": str(bundles["1"].path), "LIKEWISE_TRUST": "true"},
        "upper:2": {"LIKEWISE_BUNDLE": str(bundles["2"].path), "LIKEWISE_TRUST": "true"},
        "bare:1": {"LIKEWISE_TRUST": "true"},
    }
    with rehearsal(ProcessRunner(images), most_wait_s=PATIENCE, answer_s=PATIENCE) as emulator:
        made = Room(emulator, "", tmp_path_factory.mktemp("room"))
        made.role = role_of(made, "deployer")
        made.client("s3").create_bucket(Bucket="rows")
        made.model(LIVE)
        made.config(LIVE)
        assert made.endpoint(LIVE)["EndpointStatus"] == "InService"
        yield made


def role_of(room: Room, name: str, principal: str = "sagemaker.amazonaws.com") -> str:
    statement = {**TRUST["Statement"][0], "Principal": {"Service": principal}}  # type: ignore[dict-item]
    policy = json.dumps({**TRUST, "Statement": [statement]})
    try:
        said = room.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=policy)
    except ClientError:  # another rehearsal of this process has it: moto keeps one account a process
        said = room.client("iam").get_role(RoleName=name)
    return str(said["Role"]["Arn"])


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "room" in request.fixturenames:
        request.getfixturevalue("room").emulator.faults.clear()


def refused(code: str) -> Any:
    return pytest.raises(ClientError, match=code)


# --- an endpoint's life ----------------------------------------------------------------------------------------------


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


def gone(room: Room, name: str) -> None:
    """Delete the endpoint, and wait until nobody finds it."""
    room.client("sagemaker").delete_endpoint(EndpointName=name)

    def missing() -> bool:
        try:
            room.described(name)
        except ClientError:
            return True
        return False

    until(missing)


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


def children() -> list[str]:
    """The processes that stand in for containers."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            parent = each.with_name("stat").read_text().rpartition(")")[2].split()[1]
            if b"likewise.container" in each.read_bytes() and parent == str(os.getpid()):
                found.append(each.parent.name)
        except OSError:
            continue
    return found


def log_of(room: Room, name: str) -> list[str]:
    """What CloudWatch has of the endpoint."""
    logs, group = room.client("logs"), f"/aws/sagemaker/Endpoints/{name}"
    streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert streams[0]["logStreamName"].startswith("AllTraffic/i-")
    said = logs.get_log_events(logGroupName=group, logStreamName=streams[0]["logStreamName"], startFromHead=True)
    assert len(logs.filter_log_events(logGroupName=group)["events"]) >= len(said["events"])
    return [event["message"] for event in said["events"]]


# --- what goes wrong -------------------------------------------------------------------------------------------------


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


# --- what is asked, and how it is refused ----------------------------------------------------------------------------


def test_requests_are_checked_as_aws_checks_them(room: Room) -> None:
    bare = room.client("sagemaker", parameter_validation=False)
    with refused("Value 'a_b' at 'modelName' failed to satisfy constraint: Member must satisfy regular expression"):
        bare.create_model(ModelName="a_b")
    with refused("length less than or equal to 63"):
        bare.create_model(ModelName="a" * 64)
    with refused("Value null at 'endpointConfigName' failed to satisfy constraint: Member must not be null"):
        bare.create_endpoint(EndpointName="a")
    with refused("satisfy enum value set"):
        variant = {"VariantName": "v", "ModelName": LIVE, "InstanceType": "ml.m99.huge", "InitialInstanceCount": 1}
        bare.create_endpoint_config(EndpointConfigName="x", ProductionVariants=[variant])
    with refused("productionVariants.1.member.containerStartupHealthCheckTimeoutInSeconds"):
        variant = {
            "VariantName": "v",
            "ModelName": LIVE,
            **INSTANCE,
            "ContainerStartupHealthCheckTimeoutInSeconds": 1,
        }
        bare.create_endpoint_config(EndpointConfigName="x", ProductionVariants=[variant])


def test_members_and_types_that_the_model_does_not_have(room: Room) -> None:
    assert "Unknown parameter" in str(wrong("CreateModel", ModelName="a", Modell="b"))
    assert "Invalid type" in str(wrong("CreateModel", ModelName=1))
    assert wrong("CreateModel", ModelName="a") is None


def wrong(operation: str, **params: Any) -> str | None:
    return problems(params, service("sagemaker").operation_model(operation).input_shape)


def test_every_pattern_of_the_operations_that_are_rehearsed_is_held() -> None:
    seen: set[str] = set()

    def walk(shape: Any, patterns: set[str]) -> None:
        if shape.name in seen:
            return
        seen.add(shape.name)
        patterns.update({shape.metadata["pattern"]} if "pattern" in shape.metadata else ())
        for part in (*getattr(shape, "members", {}).values(), *(getattr(shape, each, None) for each in PARTS)):
            if part is not None:
                walk(part, patterns)

    patterns: set[str] = set()
    for name, operations in REHEARSED.items():
        for operation in operations:
            walk(service(name).operation_model(operation).input_shape, patterns)
    assert len(patterns) > 20
    assert {pattern for pattern in patterns if compiled(pattern) is None} == set()


PARTS = ("member", "key", "value")
REHEARSED = {
    "sagemaker": (
        "CreateModel",
        "CreateEndpointConfig",
        "CreateEndpoint",
        "UpdateEndpoint",
        "CreateTransformJob",
        "AddTags",
    ),
    "sagemaker-runtime": ("InvokeEndpoint", "InvokeEndpointAsync"),
}


@given(st.text(max_size=70))
def test_names_are_held_to_their_pattern(name: str) -> None:
    plain = all(each.isascii() and (each.isalnum() or each == "-") for each in name)
    good = 0 < len(name) <= 63 and plain and name[0] != "-" and name[-1] != "-"
    assert (wrong("DescribeEndpoint", EndpointName=name) is None) == good


def test_what_is_there_twice_and_what_is_not(room: Room) -> None:
    sagemaker = room.client("sagemaker")
    with refused("Cannot create already existing model"):
        room.model(LIVE)
    with refused("Cannot create already existing endpoint configuration"):
        room.config(LIVE)
    with refused('Cannot create already existing endpoint "'):
        sagemaker.create_endpoint(EndpointName=LIVE, EndpointConfigName=LIVE)
    with refused("Could not find endpoint configuration"):
        sagemaker.create_endpoint(EndpointName="x", EndpointConfigName="nowhere")
    with refused("Could not find model"):
        room.config("x", "nowhere")
    with refused("ResourceNotFound.*Could not find requested job"):
        sagemaker.describe_transform_job(TransformJobName="nowhere")
    with refused("UnknownOperationException.*does not know ListClusters"):
        sagemaker.list_clusters()


def test_tags_and_lists(room: Room) -> None:
    sagemaker = room.client("sagemaker")
    for number in range(3):
        tags = [{"Key": "likewise:bundle", "Value": f"sha256:{number}"}]
        sagemaker.create_model(
            ModelName=f"listed-{number}",
            ExecutionRoleArn=room.role,
            PrimaryContainer={"Image": "upper:1"},
            Tags=tags,
        )
    arn = sagemaker.describe_model(ModelName="listed-1")["ModelArn"]
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "likewise:bundle", "Value": "sha256:1"}]
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "a"}])
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["likewise:bundle"])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "a"}]
    pages = sagemaker.get_paginator("list_models").paginate(
        NameContains="listed", SortBy="Name", SortOrder="Ascending", PaginationConfig={"PageSize": 2}
    )
    assert [[each["ModelName"] for each in page["Models"]] for page in pages] == [
        ["listed-0", "listed-1"],
        ["listed-2"],
    ]
    endpoints = sagemaker.list_endpoints(StatusEquals="InService")["Endpoints"]
    assert [each["EndpointName"] for each in endpoints] == [LIVE]
    assert LIVE in [each["EndpointConfigName"] for each in sagemaker.list_endpoint_configs()["EndpointConfigs"]]


# --- asynchronous and batch ------------------------------------------------------------------------------------------


def test_asynchronous_requests_come_from_s3_and_go_there(room: Room) -> None:
    room.model("later")
    output = {"S3OutputPath": "s3://rows/async", "S3FailurePath": "s3://rows/failed"}
    room.config("later", AsyncInferenceConfig={"OutputConfig": output})
    assert room.endpoint("later")["AsyncInferenceConfig"]["OutputConfig"] == output
    with refused("asynchronous"):
        room.ask("later")
    runtime = room.client("sagemaker-runtime")
    asked: dict[str, Any] = {"EndpointName": "later", "ContentType": "application/json"}
    good = runtime.invoke_endpoint_async(**asked, InputLocation=room.put("in.json", b'{"inputs": ["a"]}'))
    bad = runtime.invoke_endpoint_async(**asked, InputLocation=room.put("bad.json", b"{"))
    missing = runtime.invoke_endpoint_async(**asked, InputLocation="s3://rows/nowhere.json")
    until(lambda: there(room, good["OutputLocation"]))
    assert room.get(good["OutputLocation"]) == b'{"predictions":["1:A"]}'
    until(lambda: there(room, bad["FailureLocation"]))
    assert b"(400)" in room.get(bad["FailureLocation"])
    until(lambda: there(room, missing["FailureLocation"]))
    assert b"Unable to download" in room.get(missing["FailureLocation"])
    with refused("has no AsyncInferenceConfig"):
        runtime.invoke_endpoint_async(
            EndpointName=LIVE, ContentType="application/json", InputLocation="s3://rows/in.json"
        )
    gone(room, "later")


def there(room: Room, uri: str) -> bool:
    try:
        room.get(uri)
    except ClientError:
        return False
    return True


def job(room: Room, name: str, source: str, **more: Any) -> dict[str, Any]:
    """The transform job as it ends."""
    sagemaker, given = (
        room.client("sagemaker"),
        {"ContentType": "text/csv", "SplitType": "Line", **more.pop("given", {})},
    )
    sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=LIVE,
        TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}}, **given},
        TransformOutput={"S3OutputPath": f"s3://rows/out/{name}", "AssembleWith": "Line", "Accept": "text/csv"},
        TransformResources={"InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
        **more,
    )
    until(lambda: described_job(room, name)["TransformJobStatus"] in ("Completed", "Failed", "Stopped"))
    return described_job(room, name)


def described_job(room: Room, name: str) -> dict[str, Any]:
    said: dict[str, Any] = room.client("sagemaker").describe_transform_job(TransformJobName=name)
    return said


def test_a_transform_job_answers_every_line_in_order(room: Room) -> None:
    texts = [f"row {number}, of many" for number in range(300)]
    lines = "".join(f'"{text}"\n' for text in texts).encode()
    room.put("batch/one.csv", lines)
    room.put("batch/more/two.csv.gz", gzip.compress(b"a\n"))
    room.put("zipped/two.csv.gz", gzip.compress(b"a\nb\n"))
    for name, strategy in (("many", "MultiRecord"), ("single", "SingleRecord")):
        said = job(room, name, "s3://rows/batch/one", BatchStrategy=strategy, MaxConcurrentTransforms=4)
        assert said["TransformJobStatus"] == "Completed", said
        out = room.get(f"s3://rows/out/{name}/one.csv.out").decode().splitlines()
        assert out == [f'"1:{text.upper()}"' for text in texts]
    said = job(room, "zipped", "s3://rows/zipped/", given={"CompressionType": "Gzip"})
    assert room.get("s3://rows/out/zipped/two.csv.gz.out") == b"1:A\n1:B\n"
    listed = room.client("sagemaker").list_transform_jobs(StatusEquals="Completed", SortBy="Name")
    assert {each["TransformJobName"] for each in listed["TransformJobSummaries"]} >= {"many", "single", "zipped"}


def test_a_transform_job_that_fails_says_why(room: Room) -> None:
    room.put("wrong/one.csv", b"bad row\n")
    room.put("wrong/two.csv", b"good\n")
    said = job(room, "wrong", "s3://rows/wrong/")
    assert room.get("s3://rows/out/wrong/two.csv.out") == b"1:GOOD\n"
    assert not there(room, "s3://rows/out/wrong/one.csv.out")
    assert (said["TransformJobStatus"], "422" in said["FailureReason"]) == ("Failed", True)
    assert "No S3 objects" in job(room, "empty", "s3://rows/nothing/")["FailureReason"]
    with refused("ResourceInUse"):
        job(room, "empty", "s3://rows/nothing/")


def test_a_transform_job_is_stopped(room: Room) -> None:
    gate = room.folder / "stop"
    room.put("gated/one.csv", f"gate {gate}\nb\n".encode())
    running = threading.Thread(
        target=job, args=(room, "stopped", "s3://rows/gated/"), kwargs={"BatchStrategy": "SingleRecord"}
    )
    running.start()
    until(Path(f"{gate}.begun").exists)
    room.client("sagemaker").stop_transform_job(TransformJobName="stopped")
    gate.touch()
    running.join(PATIENCE)
    assert described_job(room, "stopped")["TransformJobStatus"] == "Stopped"
    assert len(children()) == 1


# --- the other services ----------------------------------------------------------------------------------------------


def test_autoscaling_is_kept(room: Room) -> None:
    scaling = room.client("application-autoscaling")
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/dl-sentiment-model/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling.register_scalable_target(**target, MinCapacity=1, MaxCapacity=2)
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    scaling.put_scaling_policy(
        **target,
        PolicyName="p",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={"TargetValue": 70.0, "PredefinedMetricSpecification": metric},
    )
    kept = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert [each["PolicyName"] for each in kept] == ["p"]
    scaling.delete_scaling_policy(**target, PolicyName="p")
    scaling.deregister_scalable_target(**target)
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []


def test_one_address_for_every_service(room: Room) -> None:
    assert room.client("sts").get_caller_identity()["Account"] == "123456789012"
    made = room.client("ecr").create_repository(repositoryName="team/model")["repository"]
    assert made["repositoryUri"].endswith("/team/model")


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("throttle", "ThrottlingException"),
        ("expired-token", "ExpiredTokenException"),
        ("quota", "ResourceLimitExceeded"),
    ],
)
def test_faults_as_the_service_says_them(room: Room, kind: Any, code: str) -> None:
    room.emulator.faults.add(Fault(kind, nth=2, operation="ListModels"))
    sagemaker = room.client("sagemaker")
    sagemaker.list_models()
    with refused(code):
        sagemaker.list_models()
    sagemaker.list_models()


@pytest.mark.parametrize(
    ("service_name", "ask", "codes"),
    [
        ("s3", lambda client: client.list_buckets(), ("SlowDown", "ExpiredToken")),
        ("sts", lambda client: client.get_caller_identity(), ("Throttling", "ExpiredToken")),
        ("monitoring", lambda client: client.describe_alarms(), ("ThrottlingException", "ExpiredTokenException")),
        ("ecr", lambda client: client.describe_repositories(), ("ThrottlingException", "ExpiredTokenException")),
    ],
)
def test_faults_of_the_other_services(room: Room, service_name: str, ask: Any, codes: tuple[str, str]) -> None:
    client = room.client({"monitoring": "cloudwatch"}.get(service_name, service_name))
    room.emulator.faults.add(Fault("throttle", service=service_name))
    with refused(codes[0]):
        ask(client)
    room.emulator.faults.add(Fault("expired-token", service=service_name, times=None))
    for _ in range(2):
        with refused(codes[1]):
            ask(client)


def test_a_connection_is_cut_before_or_after(room: Room) -> None:
    sagemaker = room.client("sagemaker")
    room.emulator.faults.clear()
    for kind, name in (("cut", "cut-before"), ("cut-after", "cut-later")):
        room.emulator.faults.add(Fault(kind, operation="CreateModel"))  # type: ignore[arg-type]
        with pytest.raises(BotoCoreError):
            room.model(name)
        room.emulator.faults.clear()
    with refused("Could not find model"):
        sagemaker.describe_model(ModelName="cut-before")
    assert sagemaker.describe_model(ModelName="cut-later")["ModelName"] == "cut-later"
    assert room.emulator.faults.calls == [Call("sagemaker", "DescribeModel"), Call("sagemaker", "DescribeModel")]


# --- the chapter's line ----------------------------------------------------------------------------------------------


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
