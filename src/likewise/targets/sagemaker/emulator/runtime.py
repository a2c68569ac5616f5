"""SageMaker's runtime: a request to an endpoint goes to its container, now or from S3."""

from __future__ import annotations

import http.client
import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from werkzeug.wrappers import Response

from likewise.targets.sagemaker.emulator.account import ENDPOINTS, ID, Account, Unreadable
from likewise.targets.sagemaker.emulator.catalog import RequestParams
from likewise.targets.sagemaker.emulator.endpoints import Endpoints, Variant
from likewise.targets.sagemaker.emulator.fleet import ContainerResponse
from likewise.targets.sagemaker.emulator.wire import RUNTIME, AwsError, invalid

logger = logging.getLogger(__name__)

ANSWER_S = 60.0
ASYNC_S = 900.0  # where InvocationTimeoutSeconds does not say
ASYNC_WORKERS = 4
_HEADERS = {
    "CustomAttributes": "X-Amzn-SageMaker-Custom-Attributes",
    "InferenceId": "X-Amzn-SageMaker-Inference-Id",
    "TargetModel": "X-Amzn-SageMaker-Target-Model",
    "TargetVariant": "X-Amzn-SageMaker-Target-Variant",
}
SLOW = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for "
    "each container in Amazon CloudWatch, resolve the issue, and try again."
)


class Runtime:
    """One region's.  Methods named as SageMaker's operations take what those do, and give the answer."""

    def __init__(self, account: Account, endpoints: Endpoints, answer_s: float) -> None:
        self._account = account
        self._endpoints = endpoints
        self._answer_s = answer_s
        self._queue = ThreadPoolExecutor(ASYNC_WORKERS, thread_name_prefix="likewise-rehearsal-async")

    def close(self) -> None:
        """What is queued is dropped."""
        self._queue.shutdown(wait=True, cancel_futures=True)

    def invoke_endpoint(self, asked: RequestParams) -> Response:
        variant, config = self._variant(asked)
        if "AsyncInferenceConfig" in config:
            raise _invalid(f"Endpoint {asked['EndpointName']} is asynchronous: use InvokeEndpointAsync.")
        reply = _asked_of(variant, asked, asked.get("Body", b""), self._answer_s)
        if reply.status // 100 != 2:
            raise self._model_error(asked["EndpointName"], reply)
        response = Response(reply.body, 200, content_type=reply.headers.get("content-type", ""))
        response.headers["x-Amzn-Invoked-Production-Variant"] = variant.name
        kept = reply.headers.get(_HEADERS["CustomAttributes"].lower())
        if kept is not None:
            response.headers[_HEADERS["CustomAttributes"]] = kept
        return response

    def invoke_endpoint_async(self, asked: RequestParams) -> Response:
        variant, config = self._variant(asked)
        if "AsyncInferenceConfig" not in config:
            raise _invalid(f"Endpoint {asked['EndpointName']} has no AsyncInferenceConfig.")
        if bool(asked.get("Body")) == ("InputLocation" in asked):
            raise _invalid("Give either a Body or an InputLocation.")
        output = config["AsyncInferenceConfig"]["OutputConfig"]
        asked = {"InferenceId": str(uuid4()), **asked}
        name = asked.get("Filename", f"{uuid4()}.out")
        good = _below(output.get("S3OutputPath", ""), asked.get("S3OutputPathExtension", ""), name)
        bad = _below(output.get("S3FailurePath", output.get("S3OutputPath", "")), "", f"{uuid4()}-error.out")
        self._queue.submit(self._answer_later, variant, asked, good, bad)
        response = Response(json.dumps({"InferenceId": asked["InferenceId"]}), 202, content_type="application/json")
        response.headers["X-Amzn-SageMaker-OutputLocation"] = good
        response.headers["X-Amzn-SageMaker-FailureLocation"] = bad
        return response

    def _answer_later(self, variant: Variant, asked: RequestParams, good: str, bad: str) -> None:
        try:
            body = self._account.read(asked["InputLocation"]) if "InputLocation" in asked else asked["Body"]
            reply = _asked_of(variant, asked, body, asked.get("InvocationTimeoutSeconds", ASYNC_S))
        except Unreadable as error:
            reply = ContainerResponse(400, {}, f"Unable to download the request payload: {error}".encode())
        try:
            if reply.status // 100 == 2:
                self._account.write(good, reply.body)
            else:
                said = reply.body.decode(errors="replace")
                self._account.write(bad, f"Received client error ({reply.status}) from primary: {said}".encode())
        except Unreadable as error:
            logger.warning("an asynchronous answer is lost: %s", error)

    def _variant(self, asked: RequestParams) -> tuple[Variant, RequestParams]:
        name = asked["EndpointName"]
        try:
            return self._endpoints.answering(name, asked.get("TargetVariant"))
        except AwsError as error:
            missing = error.message.startswith("Could not find")
            raise _invalid(f"Endpoint {name} of account {ID} not found." if missing else error.message) from error

    def _model_error(self, name: str, reply: ContainerResponse) -> AwsError:
        said = reply.body.decode(errors="replace")
        side, region, group = (
            "client" if reply.status // 100 == 4 else "server",
            self._account.region,
            f"{ENDPOINTS}/{name}",
        )
        return AwsError(
            "ModelError",
            f'Received {side} error ({reply.status}) from primary with message "{said}". See '
            f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group={group} "
            f"in account {ID} for more information.",
            status=424,
            OriginalStatusCode=reply.status,
            OriginalMessage=said,
            LogStreamArn=f"arn:aws:logs:{region}:{ID}:log-group:{group}",
        )


def _asked_of(variant: Variant, asked: Mapping[str, Any], body: bytes, timeout_s: float) -> ContainerResponse:
    """The container's answer; one that comes too late, or not at all, has the status 0, as SageMaker says it."""
    headers = {
        "Content-Type": asked.get("ContentType", "application/octet-stream"),
        "Accept": asked.get("Accept", "*/*"),
    }
    headers |= {header: asked[name] for name, header in _HEADERS.items() if name in asked}
    try:
        return variant.running.ask("POST", "/invocations", body, headers, timeout_s=timeout_s)
    except TimeoutError:
        return ContainerResponse(0, {}, SLOW.encode())
    except (OSError, http.client.HTTPException) as error:
        return ContainerResponse(0, {}, f"The container closed the connection: {error}".encode())


def _below(path: str, extension: str, name: str) -> str:
    return "/".join(part.strip("/") for part in (path, extension, name) if part.strip("/"))


def _invalid(message: str) -> AwsError:
    return invalid(RUNTIME, message)
