"""Asynchronous requests and batch transform jobs of the emulated SageMaker."""

from __future__ import annotations

import gzip
import json
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
    typed = api.put("in.csv", b"text\na\n", ContentType="text/csv")
    of_the_object = runtime.invoke_endpoint_async(EndpointName="later", InputLocation=typed)  # as the SDK sends it
    of_the_request = runtime.invoke_endpoint_async(**params, InputLocation=typed)
    missing = runtime.invoke_endpoint_async(**params, InputLocation="s3://rows/nowhere.json")
    until(lambda: api.has(good["OutputLocation"]))
    assert api.get(good["OutputLocation"]) == b'{"predictions":["1:A"]}'
    until(lambda: api.has(bad["FailureLocation"]))
    assert b"(400)" in api.get(bad["FailureLocation"])
    until(lambda: api.has(of_the_object["OutputLocation"]))
    assert api.get(of_the_object["OutputLocation"]) == b'{"predictions":["1:A"]}'
    until(lambda: api.has(of_the_request["FailureLocation"]))
    until(lambda: api.has(missing["FailureLocation"]))
    assert b"Unable to download" in api.get(missing["FailureLocation"])
    with refused("has no AsyncInferenceConfig"):
        runtime.invoke_endpoint_async(
            EndpointName=LIVE, ContentType="application/json", InputLocation="s3://rows/in.json"
        )
    api.delete("later")


def job(api: Api, name: str, source: str, accept: str = "text/csv", **more: Any) -> dict[str, Any]:
    """Run a transform job and return its final description."""
    sagemaker, source_options = (
        api.client("sagemaker"),
        {"ContentType": "text/csv", "SplitType": "Line", **more.pop("source_options", {})},
    )
    sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=LIVE,
        TransformInput={"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}}, **source_options},
        TransformOutput={"S3OutputPath": f"s3://rows/out/{name}", "AssembleWith": "Line", "Accept": accept},
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


def test_a_transform_job_filters_records_and_joins_them_with_the_predictions(api: Api) -> None:
    lines = [f"{number},text {number}" for number in range(40)]
    api.put("joined/one.csv", "".join(f"{line}\n" for line in lines).encode())
    processing = {"InputFilter": "$[1]", "JoinSource": "Input"}
    description = job(api, "joined", "s3://rows/joined/", DataProcessing=processing, MaxConcurrentTransforms=4)
    assert description["TransformJobStatus"] == "Completed", description
    assert description["DataProcessing"] == processing
    out = api.get("s3://rows/out/joined/one.csv.out").decode().splitlines()
    assert out == [f"{line},1:TEXT {number}" for number, line in enumerate(lines)]
    api.put("joined-json/one.jsonl", b'{"id": 7, "text": "a"}\n{"id": 8, "text": "b"}\n')
    selected = {"InputFilter": "$.text", "OutputFilter": "$['id','SageMakerOutput']", "JoinSource": "Input"}
    source = {"ContentType": "application/jsonlines"}
    job(
        api,
        "joined-json",
        "s3://rows/joined-json/",
        "application/jsonlines",
        source_options=source,
        DataProcessing=selected,
    )
    out = api.get("s3://rows/out/joined-json/one.jsonl.out").decode().splitlines()
    assert [json.loads(line) for line in out] == [
        {"id": 7, "SageMakerOutput": "1:A"},
        {"id": 8, "SageMakerOutput": "1:B"},
    ]
    wrong = job(api, "out-of-range", "s3://rows/joined/", DataProcessing={"InputFilter": "$[2]"})
    assert (wrong["TransformJobStatus"], "selects nothing" in wrong["FailureReason"]) == ("Failed", True)
    with refused("one format for input and output"):
        job(api, "mixed", "s3://rows/joined/", "application/jsonlines", DataProcessing=processing)


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
