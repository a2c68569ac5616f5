"""Batch transform: objects in S3 through the model, `.out` beside each name, and nothing left that costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from likewise.core.errors import WrongUsage
from likewise.core.option_fields import as_json
from likewise.core.spec import ModelSpec
from likewise.receipts import Receipts, data_home
from likewise.targets.apply import OnStep, apply
from likewise.targets.base import BATCH, Done, Plan, PlanStep, Target, unless_fatal
from likewise.targets.sagemaker import jobs, plan
from likewise.targets.sagemaker.actions import remove_model
from likewise.targets.sagemaker.address import SageMakerAddress
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.names import check_name, derived
from likewise.targets.sagemaker.request_validation import check
from likewise.targets.sagemaker.requests import Paths, Request, built, chosen
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions
from likewise.targets.sagemaker.transform_options import TransformOptions

_SOURCE, _OUTPUT = "TransformInput.DataSource.S3DataSource.S3Uri", "TransformOutput.S3OutputPath"
_OF_JOB: Paths = {
    "TransformInput.DataSource.S3DataSource.S3DataType": "input_data_type",
    "TransformInput.ContentType": "content_type",
    "TransformInput.SplitType": "split_type",
    "TransformInput.CompressionType": "compression_type",
    "TransformOutput.Accept": "accept",
    "TransformOutput.AssembleWith": "assemble_with",
    "BatchStrategy": "batch_strategy",
    "MaxPayloadInMB": "max_payload_mb",
    "MaxConcurrentTransforms": "max_concurrent_transforms",
    "ModelClientConfig.InvocationsTimeoutInSeconds": "invocation_timeout_s",
    "ModelClientConfig.InvocationsMaxRetries": "invocation_retries",
    "DataProcessing.InputFilter": "input_filter",
    "DataProcessing.OutputFilter": "output_filter",
    "DataProcessing.JoinSource": "join_resource",
}
_OF_MODEL: Paths = {
    "TransformResources.InstanceType": "instance_type",
    "TransformResources.InstanceCount": "instance_count",
    "Tags": "tags",
}
ORIGINS: Paths = {**_OF_JOB, **_OF_MODEL, _SOURCE: "the input", _OUTPUT: "the output"}


def transform(
    target: Target,
    model: ModelSpec,
    source: str,
    output: str,
    options: SageMakerOptions,
    job: TransformOptions | None = None,
    *,
    name: str = BATCH,
    restart: bool = False,
    tell: OnStep = lambda _: None,
) -> Done:
    """Score the objects below `source` into `output`, both `s3://`; the model is removed when the job has ended.

    The same call again goes on with what was cut off, waits for a job that runs, and tells of one that has completed,
    unless it is to `restart`.  Interrupted, the job goes on at AWS.  tell: called before each step.
    Raises WrongUsage, DeployFailed with the container's last lines, TargetUnavailable, Busy.
    """
    asked = plan.EndpointSpec(
        SageMakerAddress.of(target.uri).with_options(options.region_name, options.assume_role_arn), name, model, options
    )
    request = _request(asked, job or TransformOptions(), source, output)
    _check(asked, request)
    unless_fatal(target.check(model, options))
    aws = Aws(asked.at)
    steps, made = plan.model_steps(aws, asked)
    stem = derived(name, made, request)
    tried = jobs.tries(aws, stem)
    if tried and tried[-1]["TransformJobStatus"] == "Completed" and not restart:
        if not options.archive:
            remove_model(aws, made)
        return _told(tried[-1], output)
    runs = bool(tried) and tried[-1]["TransformJobStatus"] not in jobs.ENDED
    called = tried[-1]["TransformJobName"] if runs else jobs.name_of(stem, len(tried))
    steps += _job_steps(asked, {**request, "ModelName": made, "TransformJobName": called}, made)
    receipts = Receipts(data_home() / "jobs.db")
    begun = receipts.unfinished(target.uri, stem)
    fresh = Plan(target.uri, stem, "create", model, as_json(options), tuple(steps))
    apply(fresh if begun is None else Plan.from_dict(begun.plan), target, receipts, tell)
    return _told(jobs.find(aws, called) or {"TransformJobName": called, "TransformJobStatus": "Unknown"}, output)


def _check(asked: plan.EndpointSpec, request: Request) -> None:
    """WrongUsage, before anything is asked."""
    check_name(asked.name)
    if asked.options.serverless_config is not None:
        raise WrongUsage("a batch job has instances, and no serverless_config", remedy="leave it out")
    named = {**request, "TransformJobName": asked.name, "ModelName": asked.name}
    check("sagemaker", "CreateTransformJob", named, ORIGINS)


def _job_steps(asked: plan.EndpointSpec, request: Request, model: str) -> list[PlanStep]:
    options, job = asked.options, request["TransformJobName"]
    costs = f"{options.instance_count} x {options.instance_type}, until it ends"
    steps = [
        asked.step("transform", f"starts the job {job}: {costs}", request=request, timeout_s=options.timeout_seconds)
    ]
    if not options.synchronous:
        return steps
    about = f"waits until {job} has ended, up to {options.timeout_seconds} s"
    steps.append(asked.step("job", about, job=job, timeout_s=options.timeout_seconds))
    if not options.archive:
        steps.append(asked.step("remove_models", f"removes its model {model}", names=[model]))
    return steps


def _request(asked: plan.EndpointSpec, job: TransformOptions, source: str, output: str) -> Request:
    """CreateTransformJob's, without the names of the job and the model."""
    said = {**chosen(job, _OF_JOB), **chosen(asked.options, _OF_MODEL), _SOURCE: source, _OUTPUT: output}
    return built({**said, "Tags": asked.tags})


def _told(said: Mapping[str, Any], output: str) -> Done:
    return Done(said["TransformJobName"], said["TransformJobStatus"], output, jobs.seconds(said))
