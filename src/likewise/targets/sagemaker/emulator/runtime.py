"""SageMaker's runtime: sends requests to an endpoint's container, directly or asynchronously by S3."""

from __future__ import annotations

import http.client
import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from werkzeug.wrappers import Response

from likewise.targets.sagemaker.emulator.account import ENDPOINTS, ID, Account, S3Unavailable
from likewise.targets.sagemaker.emulator.catalog import RequestParams
from likewise.targets.sagemaker.emulator.endpoints import Endpoints, Variant
from likewise.targets.sagemaker.emulator.fleet import ContainerResponse
from likewise.targets.sagemaker.emulator.wire import RUNTIME, AwsError, invalid

logger = logging.getLogger(__name__)

RESPONSE_TIMEOUT_S = 60.0
ASYNC_TIMEOUT_S = 900.0  # default of InvocationTimeoutSeconds
ASYNC_WORKERS = 4
_HEADERS = {
    "CustomAttributes": "X-Amzn-SageMaker-Custom-Attributes",
    "InferenceId": "X-Amzn-SageMaker-Inference-Id",
    "TargetModel": "X-Amzn-SageMaker-Target-Model",
    "TargetVariant": "X-Amzn-SageMaker-Target-Variant",
}
TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for "
    "each container in Amazon CloudWatch, resolve the issue, and try again."
)


class Runtime:
    """One region's runtime. Methods named like SageMaker operations take their parameters and return the response."""

    def __init__(self, account: Account, endpoints: Endpoints, response_timeout_s: float) -> None:
        self._account = account
        self._endpoints = endpoints
        self._response_timeout_s = response_timeout_s
        self._queue = ThreadPoolExecutor(ASYNC_WORKERS, thread_name_prefix="likewise-rehearsal-async")

    def close(self) -> None:
        """Drop queued asynchronous requests, and wait for running ones."""
        self._queue.shutdown(wait=True, cancel_futures=True)

    def invoke_endpoint(self, params: RequestParams) -> Response:
        variant, shadow, config = self._variant(params)
        if "AsyncInferenceConfig" in config:
            raise _invalid(f"Endpoint {params['EndpointName']} is asynchronous: use InvokeEndpointAsync.")
        if shadow is not None:  # its response is discarded
            self._queue.submit(_send, shadow, params, params.get("Body", b""), self._response_timeout_s)
        inner = _send(variant, params, params.get("Body", b""), self._response_timeout_s)
        if inner.status // 100 != 2:
            raise self._model_error(params["EndpointName"], inner)
        response = Response(inner.body, 200, content_type=inner.headers.get("content-type", ""))
        response.headers["x-Amzn-Invoked-Production-Variant"] = variant.name
        custom = inner.headers.get(_HEADERS["CustomAttributes"].lower())
        if custom is not None:
            response.headers[_HEADERS["CustomAttributes"]] = custom
        return response

    def invoke_endpoint_async(self, params: RequestParams) -> Response:
        variant, _, config = self._variant(params)
        if "AsyncInferenceConfig" not in config:
            raise _invalid(f"Endpoint {params['EndpointName']} has no AsyncInferenceConfig.")
        if bool(params.get("Body")) == ("InputLocation" in params):
            raise _invalid("Give either a Body or an InputLocation.")
        output = config["AsyncInferenceConfig"]["OutputConfig"]
        params = {"InferenceId": str(uuid4()), **params}
        name = params.get("Filename", f"{uuid4()}.out")
        output_url = _join(output.get("S3OutputPath", ""), params.get("S3OutputPathExtension", ""), name)
        failure_url = _join(output.get("S3FailurePath", output.get("S3OutputPath", "")), "", f"{uuid4()}-error.out")
        self._queue.submit(self._invoke_later, variant, params, output_url, failure_url)
        response = Response(json.dumps({"InferenceId": params["InferenceId"]}), 202, content_type="application/json")
        response.headers["X-Amzn-SageMaker-OutputLocation"] = output_url
        response.headers["X-Amzn-SageMaker-FailureLocation"] = failure_url
        return response

    def _invoke_later(self, variant: Variant, params: RequestParams, output_url: str, failure_url: str) -> None:
        try:
            if "InputLocation" in params:
                body, content_type = self._account.read_typed(params["InputLocation"])
                params = {"ContentType": content_type, **params}
            else:
                body = params["Body"]
            response = _send(variant, params, body, params.get("InvocationTimeoutSeconds", ASYNC_TIMEOUT_S))
        except S3Unavailable as error:
            response = ContainerResponse(400, {}, f"Unable to download the request payload: {error}".encode())
        try:
            if response.status // 100 == 2:
                self._account.write(output_url, response.body)
            else:
                text = response.body.decode(errors="replace")
                message = f"Received client error ({response.status}) from primary: {text}"
                self._account.write(failure_url, message.encode())
        except S3Unavailable as error:
            logger.warning("an asynchronous response is lost: %s", error)

    def _variant(self, params: RequestParams) -> tuple[Variant, Variant | None, RequestParams]:
        name = params["EndpointName"]
        try:
            return self._endpoints.pick_variant(name, params.get("TargetVariant"))
        except AwsError as error:
            missing = error.message.startswith("Could not find")
            raise _invalid(f"Endpoint {name} of account {ID} not found." if missing else error.message) from error

    def _model_error(self, name: str, response: ContainerResponse) -> AwsError:
        text = response.body.decode(errors="replace")
        side, region, group = (
            "client" if response.status // 100 == 4 else "server",
            self._account.region,
            f"{ENDPOINTS}/{name}",
        )
        return AwsError(
            "ModelError",
            f'Received {side} error ({response.status}) from primary with message "{text}". See '
            f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group={group} "
            f"in account {ID} for more information.",
            status=424,
            OriginalStatusCode=response.status,
            OriginalMessage=text,
            LogStreamArn=f"arn:aws:logs:{region}:{ID}:log-group:{group}",
        )


def _send(variant: Variant, params: Mapping[str, Any], body: bytes, timeout_s: float) -> ContainerResponse:
    """Send a request to the variant's container; status 0, as in SageMaker, if there is no response in time."""
    headers = {
        "Content-Type": params.get("ContentType", "application/octet-stream"),
        "Accept": params.get("Accept", "*/*"),
    }
    headers |= {header: params[name] for name, header in _HEADERS.items() if name in params}
    try:
        return variant.running.send("POST", "/invocations", body, headers, timeout_s=timeout_s)
    except TimeoutError:
        return ContainerResponse(0, {}, TIMED_OUT.encode())
    except (OSError, http.client.HTTPException) as error:
        return ContainerResponse(0, {}, f"The container closed the connection: {error}".encode())


def _join(path: str, extension: str, name: str) -> str:
    return "/".join(part.strip("/") for part in (path, extension, name) if part.strip("/"))


def _invalid(message: str) -> AwsError:
    return invalid(RUNTIME, message)
