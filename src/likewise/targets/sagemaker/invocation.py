"""Requests to an endpoint: answered at once, or later by way of S3."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from likewise.core.errors import DeadlineExceeded, NotDeployed, WrongUsage
from likewise.core.extras import need
from likewise.targets.base import Answer
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.inspection import required
from likewise.targets.sagemaker.polling import Patience

RUNTIME = "sagemaker-runtime"


@dataclass(frozen=True, slots=True)
class Later:
    """A request that is answered in S3. output, failure: where its answer, or the reason for none, will lie."""

    id: str
    output: str
    failure: str | None


def invoke(aws: Aws, name: str, body: bytes, content_type: str) -> Answer:
    """The container's answer, whatever its status.

    Raises NotDeployed, TargetUnavailable, BodyTooLarge (as SageMaker limits it), DeployFailed.
    """

    def ask(runtime: Any) -> Answer:
        try:
            said = runtime.invoke_endpoint(EndpointName=name, ContentType=content_type, Body=body)
        except need("botocore.exceptions", extra="aws").ClientError as error:
            if error.response["Error"]["Code"] != "ModelError":
                raise
            status = int(error.response.get("OriginalStatusCode", 500))
            return Answer(status, "application/json", str(error.response.get("OriginalMessage", "")).encode())
        return Answer(200, said.get("ContentType", ""), said["Body"].read())

    answer: Answer = aws.run(RUNTIME, "invoke_endpoint", ask)
    return answer


def invoke_async(aws: Aws, name: str, body: bytes, content_type: str) -> Later:
    """Ask an asynchronous endpoint.

    Raises WrongUsage where the endpoint is none, NotDeployed, TargetUnavailable.
    """
    source = _put(aws, name, body)
    said = aws.call(RUNTIME, "invoke_endpoint_async", EndpointName=name, InputLocation=source, ContentType=content_type)
    return Later(said["InferenceId"], said["OutputLocation"], said.get("FailureLocation"))


def answer_of(aws: Aws, later: Later, patience: Patience, timeout_s: float) -> Answer:
    """Wait for the answer: the status is 200, or 500 with the reason; DeadlineExceeded where neither comes in time."""

    def look() -> tuple[Answer | None, str]:
        for url, status in ((later.output, 200), (later.failure, 500)):
            said = None if url is None else _object(aws, url)
            if said is not None:
                return Answer(status, said.get("ContentType", ""), said["Body"]), f"{later.id}: {url}"
        return None, f"{later.id}: waiting for {later.output}"

    answer = patience.until(look, timeout_s)
    if answer is None:
        raise DeadlineExceeded(
            f"no answer lies at {later.output} after {timeout_s:g} seconds",
            remedy="look again later: it may still come",
        )
    return answer


def _put(aws: Aws, name: str, body: bytes) -> str:
    """The request in S3, beside where its answers go."""
    config = required(aws, name).configured.get("AsyncInferenceConfig") or {}
    output = (config.get("OutputConfig") or {}).get("S3OutputPath")
    if not output:
        raise WrongUsage(
            f"the endpoint {name!r} answers at once and takes no asynchronous request",
            remedy=f"likewise predict {name} INPUT, or deploy it with -C async_inference_config=JSON",
        )
    bucket, _, prefix = output.removeprefix("s3://").partition("/")
    key = "/".join(part for part in (prefix.strip("/"), "requests", hashlib.sha256(body).hexdigest()) if part)
    aws.call("s3", "put_object", Bucket=bucket, Key=key, Body=body)
    return f"s3://{bucket}/{key}"


def _object(aws: Aws, url: str) -> Mapping[str, Any] | None:
    bucket, _, key = url.removeprefix("s3://").partition("/")

    def get(s3: Any) -> Mapping[str, Any]:
        said = s3.get_object(Bucket=bucket, Key=key)
        return {"ContentType": said.get("ContentType", ""), "Body": said["Body"].read()}

    try:
        answer: Mapping[str, Any] = aws.run("s3", "get_object", get)
    except NotDeployed:  # how an object that is not there is told
        return None
    return answer
