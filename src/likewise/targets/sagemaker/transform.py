"""Batch transform: scores objects in S3 into `NAME.out`, and removes everything that costs afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from likewise.core.errors import WrongUsage
from likewise.core.option_fields import as_json
from likewise.core.spec import ModelSpec
from likewise.core.uris import is_bucket
from likewise.receipts import Receipts, data_home
from likewise.targets.apply import OnStep, apply
from likewise.targets.base import BATCH, JobResult, Plan, PlanStep, Target, unless_fatal
from likewise.targets.sagemaker import jobs, plan
from likewise.targets.sagemaker.actions import remove_model
from likewise.targets.sagemaker.address import SageMakerAddress
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.names import check_name, derived
from likewise.targets.sagemaker.request_validation import check
from likewise.targets.sagemaker.requests import Paths, Request, build, option_values
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions
from likewise.targets.sagemaker.transform_options import TransformOptions, with_header

_SOURCE, _OUTPUT = "TransformInput.DataSource.S3DataSource.S3Uri", "TransformOutput.S3OutputPath"
_JOB_PATHS: Paths = {
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
_MODEL_PATHS: Paths = {
    "TransformResources.InstanceType": "instance_type",
    "TransformResources.InstanceCount": "instance_count",
    "Tags": "tags",
}
ORIGINS: Paths = {**_JOB_PATHS, **_MODEL_PATHS, _SOURCE: "the input", _OUTPUT: "the output"}


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
    on_step: OnStep = lambda _: None,
) -> JobResult:
    """Score the objects below `source` into `output`, both `s3://`; the model is removed when the job has ended.

    Calling it again resumes an interrupted call, waits for a running job, and returns the result of a completed one,
    unless `restart` is set.  If the call is interrupted, the job continues at AWS.  on_step: called before each step.
    Raises WrongUsage, DeployFailed with the last lines of the container's log, TargetUnavailable, Busy.
    """
    spec = plan.EndpointSpec(
        SageMakerAddress.of(target.uri).with_options(options.region_name, options.assume_role_arn), name, model, options
    )
    for location in (source, output):
        if (host := urlsplit(location).netloc) and not is_bucket(host):
            raise WrongUsage(f"{location} has credentials", remedy="use s3://BUCKET/PREFIX, and AWS's usual settings")
    request = _request(spec, job or TransformOptions(), source, output)
    _check(spec, request)
    unless_fatal(target.check(model, options))
    aws = Aws(spec.at)
    steps, model_name = plan.model_steps(aws, spec)
    stem = derived(name, model_name, request)
    attempts = jobs.attempts(aws, stem)
    if attempts and attempts[-1]["TransformJobStatus"] == "Completed" and not restart:
        if not options.archive:
            remove_model(aws, model_name)
        return _result(attempts[-1], output)
    running = bool(attempts) and attempts[-1]["TransformJobStatus"] not in jobs.ENDED
    job_name = attempts[-1]["TransformJobName"] if running else jobs.name_of(stem, len(attempts))
    steps += _job_steps(spec, {**request, "ModelName": model_name, "TransformJobName": job_name}, model_name)
    receipts = Receipts(data_home() / "jobs.db")
    unfinished = receipts.unfinished(target.uri, stem)
    fresh = Plan(target.uri, stem, "create", model, as_json(options), tuple(steps))
    apply(fresh if unfinished is None else Plan.from_dict(unfinished.plan), target, receipts, on_step)
    described = jobs.describe(aws, job_name) or {"TransformJobName": job_name, "TransformJobStatus": "Unknown"}
    return _result(described, output)


def _check(spec: plan.EndpointSpec, request: Request) -> None:
    """Raise WrongUsage if the job is not valid; sends nothing to AWS."""
    check_name(spec.name)
    if spec.options.serverless_config is not None:
        raise WrongUsage("a batch job cannot be serverless", remedy="leave serverless_config out")
    complete = {**request, "TransformJobName": spec.name, "ModelName": spec.name}
    check("sagemaker", "CreateTransformJob", complete, ORIGINS)


def _job_steps(spec: plan.EndpointSpec, request: Request, model: str) -> list[PlanStep]:
    options, job = spec.options, request["TransformJobName"]
    costs = f"{options.instance_count} x {options.instance_type}, until it ends"
    steps = [
        spec.step("transform", f"starts the job {job}: {costs}", request=request, timeout_s=options.timeout_seconds)
    ]
    if not options.synchronous:
        return steps
    about = f"waits until {job} has ended, up to {options.timeout_seconds} s"
    steps.append(spec.step("job", about, job=job, timeout_s=options.timeout_seconds))
    if not options.archive:
        steps.append(spec.step("remove_models", f"removes its model {model}", names=[model]))
    return steps


def _request(spec: plan.EndpointSpec, job: TransformOptions, source: str, output: str) -> Request:
    """The parameters of CreateTransformJob without the names of the job and the model."""
    values = {**option_values(with_header(job), _JOB_PATHS), **option_values(spec.options, _MODEL_PATHS)}
    return build({**values, _SOURCE: source, _OUTPUT: output, "Tags": spec.tags})


def _result(described: Mapping[str, Any], output: str) -> JobResult:
    return JobResult(described["TransformJobName"], described["TransformJobStatus"], output, jobs.seconds(described))
