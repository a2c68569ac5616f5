"""Batch transform jobs and asynchronous requests of the target `sagemaker`."""

from __future__ import annotations

import json

import pytest
from tests.support.aws.account import Account
from tests.support.aws.deployments import ONE, deployed, failure_of
from tests.support.aws.faults import Fault, Kind

from likewise.core.errors import DeployFailed, WrongUsage
from likewise.core.option_fields import coerce
from likewise.targets.sagemaker.invocation import invoke_async, wait_for_response
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions
from likewise.targets.sagemaker.transform import transform
from likewise.targets.sagemaker.transform_options import TransformOptions

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sagemaker")]
pytest_plugins = ("tests.support.aws.fixtures",)


def test_the_response_to_an_asynchronous_request_is_read_from_s3(account: Account, bucket: str) -> None:
    config = json.dumps({"OutputConfig": {"S3OutputPath": f"s3://{bucket}/out"}})
    receipt = deployed(account, "async", async_inference_config=config)
    target = account.target
    aws = target.aws_of(receipt)
    pending = invoke_async(aws, "async", b'{"inputs": ["a"]}', "application/json")
    assert pending.output.startswith(f"s3://{bucket}/out")
    response = wait_for_response(aws, pending, target.poller, 30)
    assert (response.status, json.loads(response.body)) == (200, ["/one:1", '{"inputs": ["a"]}'])


def test_a_synchronous_endpoint_rejects_asynchronous_requests(account: Account) -> None:
    receipt = deployed(account, "synchronous")
    with pytest.raises(WrongUsage, match="synchronous"):
        invoke_async(account.target.aws_of(receipt), "synchronous", b"{}", "application/json")


def job_options(account: Account, **given: str) -> SageMakerOptions:
    return coerce(SageMakerOptions, {**account.options("one:1"), **given})


def test_a_batch_job_writes_its_output_and_leaves_no_model(account: Account, bucket: str) -> None:
    account.client("s3").put_object(Bucket=bucket, Key="in/a.csv", Body=b"a\nb\n")
    target, job = account.target, TransformOptions(accept="application/json")
    source, output = f"s3://{bucket}/in", f"s3://{bucket}/out"
    done = transform(target, ONE, source, output, job_options(account), job)
    assert done.status == "Completed"
    assert [key for key in account.objects() if key.endswith("a.csv.out")]
    assert account.client("sagemaker").list_models()["Models"] == []
    again = transform(target, ONE, source, output, job_options(account), job)
    assert again.id == done.id  # already completed
    once_more = transform(target, ONE, source, output, job_options(account), job, restart=True)
    assert once_more.id == f"{done.id}-2"


def test_a_failed_batch_job_is_reported_and_leaves_no_model(account: Account, bucket: str) -> None:
    account.client("s3").put_object(Bucket=bucket, Key="in/a.csv", Body=b"a\nb\n")
    arguments = (ONE, f"s3://{bucket}/in", f"s3://{bucket}/failed", job_options(account, env='{"HOW": "exits"}'))
    with pytest.raises(DeployFailed, match="the weights do not exist"):
        transform(account.target, *arguments)
    assert account.client("sagemaker").list_models()["Models"] == []


@pytest.mark.parametrize("kind", ["cut", "cut-after"])
def test_a_batch_job_that_fails_at_any_call_costs_nothing(account: Account, bucket: str, kind: Kind) -> None:
    sagemaker = account.client("sagemaker")
    account.client("s3").put_object(Bucket=bucket, Key="in/a.csv", Body=b"a\n")

    def run() -> None:
        output = f"s3://{bucket}/{kind}"
        transform(account.target, ONE, f"s3://{bucket}/in", output, job_options(account), restart=True)

    account.emulator.faults.clear()
    run()
    for call in dict.fromkeys(account.emulator.faults.calls):
        account.emulator.faults.clear()
        account.emulator.faults.add(Fault(kind, 1, call.operation, call.service))
        error = failure_of(run)
        assert error.remedy if error is not None else call.operation == "GetRole", call
        running = sagemaker.list_transform_jobs(StatusEquals="InProgress")["TransformJobSummaries"]
        assert (running, sagemaker.list_models()["Models"]) == ([], []), call


@pytest.mark.parametrize(
    ("source", "given", "message"),
    [
        ("/a/path", {}, "the input"),
        ("s3://b/in", {"instance_type": "ml.m5.xlrage"}, "instance_type"),
        ("s3://b/in", {"serverless_config": '{"MemorySizeInMB": 1024, "MaxConcurrency": 1}'}, "be serverless"),
    ],
)
def test_an_invalid_batch_job_is_rejected_before_aws_is_called(
    account: Account, source: str, given: dict[str, str], message: str
) -> None:
    account.emulator.faults.clear()
    with pytest.raises(WrongUsage, match=message):
        transform(account.target, ONE, source, "s3://b/out", job_options(account, **given))
    assert account.emulator.faults.calls == []
