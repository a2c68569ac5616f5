"""Synchronous requests to an endpoint, and asynchronous ones whose responses are stored in S3."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from likewise.core.errors import DeadlineExceeded, NotDeployed, WrongUsage
from likewise.core.extras import need
from likewise.targets.base import Response
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.inspection import require_endpoint
from likewise.targets.sagemaker.polling import Poller

RUNTIME = "sagemaker-runtime"


@dataclass(frozen=True, slots=True)
class AsyncInvocation:
    """An asynchronous request. output, failure: the S3 URLs of its response and of the error in case it fails."""

    id: str
    output: str
    failure: str | None


def invoke(aws: Aws, name: str, body: bytes, content_type: str) -> Response:
    """Send a request and return the container's response, whatever its status.

    Raises NotDeployed, TargetUnavailable, BodyTooLarge (SageMaker's limit), DeployFailed.
    """

    def send(runtime: Any) -> Response:
        try:
            response = runtime.invoke_endpoint(EndpointName=name, ContentType=content_type, Body=body)
        except need("botocore.exceptions", extra="aws").ClientError as error:
            if error.response["Error"]["Code"] != "ModelError":
                raise
            status = int(error.response.get("OriginalStatusCode", 500))
            return Response(status, "application/json", str(error.response.get("OriginalMessage", "")).encode())
        return Response(200, response.get("ContentType", ""), response["Body"].read())

    response: Response = aws.run(RUNTIME, "invoke_endpoint", send)
    return response


def invoke_async(aws: Aws, name: str, body: bytes, content_type: str) -> AsyncInvocation:
    """Send a request to an asynchronous endpoint.

    Raises WrongUsage if the endpoint is not asynchronous, NotDeployed, TargetUnavailable.
    """
    source = _upload(aws, name, body)
    response = aws.call(
        RUNTIME, "invoke_endpoint_async", EndpointName=name, InputLocation=source, ContentType=content_type
    )
    return AsyncInvocation(response["InferenceId"], response["OutputLocation"], response.get("FailureLocation"))


def wait_for_response(aws: Aws, invocation: AsyncInvocation, poller: Poller, timeout_s: float) -> Response:
    """Wait for the response: status 200, or 500 with the reason; DeadlineExceeded after `timeout_s` seconds."""

    def check() -> tuple[Response | None, str]:
        for url, status in ((invocation.output, 200), (invocation.failure, 500)):
            stored = None if url is None else _download(aws, url)
            if stored is not None:
                return Response(status, stored.get("ContentType", ""), stored["Body"]), f"{invocation.id}: {url}"
        return None, f"{invocation.id}: waiting for {invocation.output}"

    response = poller.until(check, timeout_s)
    if response is None:
        raise DeadlineExceeded(
            f"there is no response at {invocation.output} after {timeout_s:g} seconds",
            remedy="check that location later: the request may still complete",
        )
    return response


def _upload(aws: Aws, name: str, body: bytes) -> str:
    """Store the request in S3, in the prefix of the endpoint's responses, and return its URL."""
    config = require_endpoint(aws, name).config_description.get("AsyncInferenceConfig") or {}
    output = (config.get("OutputConfig") or {}).get("S3OutputPath")
    if not output:
        raise WrongUsage(
            f"the endpoint {name!r} is synchronous and does not accept asynchronous requests",
            remedy=f"run: likewise predict {name} INPUT, or deploy it with -C async_inference_config=JSON",
        )
    bucket, _, prefix = output.removeprefix("s3://").partition("/")
    key = "/".join(part for part in (prefix.strip("/"), "requests", hashlib.sha256(body).hexdigest()) if part)
    aws.call("s3", "put_object", Bucket=bucket, Key=key, Body=body)
    return f"s3://{bucket}/{key}"


def _download(aws: Aws, url: str) -> Mapping[str, Any] | None:
    """ContentType and Body of an S3 object, None if it does not exist."""
    bucket, _, key = url.removeprefix("s3://").partition("/")

    def get(s3: Any) -> Mapping[str, Any]:
        response = s3.get_object(Bucket=bucket, Key=key)
        return {"ContentType": response.get("ContentType", ""), "Body": response["Body"].read()}

    try:
        stored: Mapping[str, Any] = aws.run("s3", "get_object", get)
    except NotDeployed:  # the error of the kind "missing"
        return None
    return stored
