"""Asynchronous requests and batch transform jobs of the emulated SageMaker."""

from __future__ import annotations

import gzip
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.aws.api import LIVE, POLL_S, Api, refused
from tests.support.aws.images import containers
from tests.support.processes import PATIENCE, until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sagemaker")]
pytest_plugins = ("tests.support.aws.fixtures",)


def test_asynchronous_requests_and_responses_are_stored_in_s3(api: Api) -> None:
    api.model("later")
    output = {"S3OutputPath": "s3://rows/async", "S3FailurePath": "s3://rows/failed"}
    api.config("later", AsyncInferenceConfig={"OutputConfig": output})
    assert api.endpoint("later")["AsyncInferenceConfig"]["OutputConfig"] == output
    with refused("asynchronous"):
        api.invoke("later")
    runtime = api.client("sagemaker-runtime")
    params: dict[str, Any] = {"EndpointName": "later", "ContentType": "application/json"}
    good = runtime.invoke_endpoint_async(**params, InputLocation=api.put("in.json", b'{"inputs": ["a"]}'))
    bad = runtime.invoke_endpoint_async(**params, InputLocation=api.put("bad.json", b"{"))
    missing = runtime.invoke_endpoint_async(**params, InputLocation="s3://rows/nowhere.json")
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
    """Run a transform job and return its final description."""
    sagemaker, source_options = (
        api.client("sagemaker"),
        {"ContentType": "text/csv", "SplitType": "Line", **more.pop("source_options", {})},
    )
    sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=LIVE,
        TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}}, **source_options},
        TransformOutput={"S3OutputPath": f"s3://rows/out/{name}", "AssembleWith": "Line", "Accept": "text/csv"},
        TransformResources={"InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
        **more,
    )
    while (description := described_job(api, name))["TransformJobStatus"] not in ("Completed", "Failed", "Stopped"):
        time.sleep(POLL_S)
    until(lambda: containers() == 1)  # only the one of LIVE; the job's container exits after the job
    return description


def described_job(api: Api, name: str) -> dict[str, Any]:
    description: dict[str, Any] = api.client("sagemaker").describe_transform_job(TransformJobName=name)
    return description


def test_a_transform_job_scores_every_line_in_order(api: Api) -> None:
    texts = [f"row {number}, of many" for number in range(300)]
    lines = "".join(f'"{text}"\n' for text in texts).encode()
    api.put("batch/one.csv", lines)
    api.put("batch/more/two.csv.gz", gzip.compress(b"a\n"))
    api.put("zipped/two.csv.gz", gzip.compress(b"a\nb\n"))
    for name, strategy in (("many", "MultiRecord"), ("single", "SingleRecord")):
        description = job(api, name, "s3://rows/batch/one", BatchStrategy=strategy, MaxConcurrentTransforms=4)
        assert description["TransformJobStatus"] == "Completed", description
        out = api.get(f"s3://rows/out/{name}/one.csv.out").decode().splitlines()
        assert out == [f'"1:{text.upper()}"' for text in texts]
    description = job(api, "zipped", "s3://rows/zipped/", source_options={"CompressionType": "Gzip"})
    assert api.get("s3://rows/out/zipped/two.csv.gz.out") == b"1:A\n1:B\n"
    listed = api.client("sagemaker").list_transform_jobs(StatusEquals="Completed", SortBy="Name")
    assert {each["TransformJobName"] for each in listed["TransformJobSummaries"]} >= {"many", "single", "zipped"}


def test_a_failed_transform_job_reports_the_reason(api: Api) -> None:
    api.put("wrong/one.csv", b"bad row\n")
    api.put("wrong/two.csv", b"good\n")
    description = job(api, "wrong", "s3://rows/wrong/")
    assert api.get("s3://rows/out/wrong/two.csv.out") == b"1:GOOD\n"
    assert not api.has("s3://rows/out/wrong/one.csv.out")
    assert (description["TransformJobStatus"], "422" in description["FailureReason"]) == ("Failed", True)
    assert "No S3 objects" in job(api, "empty", "s3://rows/nothing/")["FailureReason"]
    with refused("ResourceInUse"):
        job(api, "empty", "s3://rows/nothing/")


def test_a_transform_job_can_be_stopped(api: Api, tmp_path: Path) -> None:
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
