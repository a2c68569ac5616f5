"""Asynchronous requests and batch transform jobs on the local SageMaker."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.process.container_room import PATIENCE, until
from tests.process.emulator_room import LIVE, Room, children, gone, refused

pytestmark = pytest.mark.slow
pytest_plugins = ("tests.process.emulator_fixtures",)


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
