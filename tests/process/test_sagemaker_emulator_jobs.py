"""Asynchronous requests and batch transform jobs on the local SageMaker."""

from __future__ import annotations

import gzip
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.aws.api import LIVE, LOOK_S, Api, refused
from tests.support.aws.images import containers
from tests.support.processes import PATIENCE, until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sagemaker")]
pytest_plugins = ("tests.support.aws.fixtures",)


def test_asynchronous_requests_come_from_s3_and_go_there(api: Api) -> None:
    api.model("later")
    output = {"S3OutputPath": "s3://rows/async", "S3FailurePath": "s3://rows/failed"}
    api.config("later", AsyncInferenceConfig={"OutputConfig": output})
    assert api.endpoint("later")["AsyncInferenceConfig"]["OutputConfig"] == output
    with refused("asynchronous"):
        api.ask("later")
    runtime = api.client("sagemaker-runtime")
    asked: dict[str, Any] = {"EndpointName": "later", "ContentType": "application/json"}
    good = runtime.invoke_endpoint_async(**asked, InputLocation=api.put("in.json", b'{"inputs": ["a"]}'))
    bad = runtime.invoke_endpoint_async(**asked, InputLocation=api.put("bad.json", b"{"))
    missing = runtime.invoke_endpoint_async(**asked, InputLocation="s3://rows/nowhere.json")
    until(lambda: api.has(good["OutputLocation"]))
    assert api.get(good["OutputLocation"]) == b'{"predictions":["1:A"]}'
    until(lambda: api.has(bad["FailureLocation"]))
    assert b"(400)" in api.get(bad["FailureLocation"])
    until(lambda: api.has(missing["FailureLocation"]))
    assert b"Unable to download" in api.get(missing["FailureLocation"])
    with refused("has no AsyncInferenceConfig"):
        runtime.invoke_endpoint_async(
            EndpointName=LIVE, ContentType="application/json", InputLocation="s3://rows/in.json"
        )
    api.delete("later")


def job(api: Api, name: str, source: str, **more: Any) -> dict[str, Any]:
    """The transform job as it ends."""
    sagemaker, given = (
        api.client("sagemaker"),
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
    while (answer := described_job(api, name))["TransformJobStatus"] not in ("Completed", "Failed", "Stopped"):
        time.sleep(LOOK_S)
    until(lambda: containers() == 1)  # that of LIVE; the job's ends after the job
    return answer


def described_job(api: Api, name: str) -> dict[str, Any]:
    said: dict[str, Any] = api.client("sagemaker").describe_transform_job(TransformJobName=name)
    return said


def test_a_transform_job_answers_every_line_in_order(api: Api) -> None:
    texts = [f"row {number}, of many" for number in range(300)]
    lines = "".join(f'"{text}"\n' for text in texts).encode()
    api.put("batch/one.csv", lines)
    api.put("batch/more/two.csv.gz", gzip.compress(b"a\n"))
    api.put("zipped/two.csv.gz", gzip.compress(b"a\nb\n"))
    for name, strategy in (("many", "MultiRecord"), ("single", "SingleRecord")):
        said = job(api, name, "s3://rows/batch/one", BatchStrategy=strategy, MaxConcurrentTransforms=4)
        assert said["TransformJobStatus"] == "Completed", said
        out = api.get(f"s3://rows/out/{name}/one.csv.out").decode().splitlines()
        assert out == [f'"1:{text.upper()}"' for text in texts]
    said = job(api, "zipped", "s3://rows/zipped/", given={"CompressionType": "Gzip"})
    assert api.get("s3://rows/out/zipped/two.csv.gz.out") == b"1:A\n1:B\n"
    listed = api.client("sagemaker").list_transform_jobs(StatusEquals="Completed", SortBy="Name")
    assert {each["TransformJobName"] for each in listed["TransformJobSummaries"]} >= {"many", "single", "zipped"}


def test_a_transform_job_that_fails_says_why(api: Api) -> None:
    api.put("wrong/one.csv", b"bad row\n")
    api.put("wrong/two.csv", b"good\n")
    said = job(api, "wrong", "s3://rows/wrong/")
    assert api.get("s3://rows/out/wrong/two.csv.out") == b"1:GOOD\n"
    assert not api.has("s3://rows/out/wrong/one.csv.out")
    assert (said["TransformJobStatus"], "422" in said["FailureReason"]) == ("Failed", True)
    assert "No S3 objects" in job(api, "empty", "s3://rows/nothing/")["FailureReason"]
    with refused("ResourceInUse"):
        job(api, "empty", "s3://rows/nothing/")


def test_a_transform_job_is_stopped(api: Api, tmp_path: Path) -> None:
    gate = tmp_path / "stop"
    api.put("gated/one.csv", f"gate {gate}\nb\n".encode())
    running = threading.Thread(
        target=job, args=(api, "stopped", "s3://rows/gated/"), kwargs={"BatchStrategy": "SingleRecord"}
    )
    running.start()
    until(Path(f"{gate}.begun").exists)
    api.client("sagemaker").stop_transform_job(TransformJobName="stopped")
    gate.touch()
    running.join(PATIENCE)
    assert described_job(api, "stopped")["TransformJobStatus"] == "Stopped"
    assert containers() == 1
