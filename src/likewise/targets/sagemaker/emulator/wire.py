"""SageMaker's protocols: JSON 1.1 for the control plane, REST for the runtime. Parses requests and builds responses.

Source: the protocols of botocore's service models `sagemaker` (`json`, 1.1) and `sagemaker-runtime` (`rest-json`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

from werkzeug.wrappers import Request, Response

from likewise.targets.sagemaker.emulator.shapes import problems
from likewise.targets.sagemaker.shapes import service_model

CONTROL, RUNTIME = "sagemaker", "sagemaker-runtime"
_SCOPE = re.compile(r"Credential=[^/]+/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")


class AwsError(Exception):
    """An error response of the service; `members`: members of its shape other than the message."""

    def __init__(self, code: str, message: str, *, status: int = 400, **members: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.members = members


@dataclass(frozen=True)
class AwsRequest:
    """One request to SageMaker, with the names and types of botocore's model."""

    service: str
    operation: str
    params: Mapping[str, Any]


def scope(request: Request) -> tuple[str, str]:
    """(`service`, `region`) that the request is signed for; empty strings if it is not signed."""
    match = _SCOPE.search(request.headers.get("Authorization", ""))
    return (match["service"], match["region"]) if match else ("", "")


def invalid(service_name: str, message: str) -> AwsError:
    """The validation error of a service; the runtime uses another code than the control plane."""
    return AwsError("ValidationError" if service_name == RUNTIME else "ValidationException", message)


def read_request(request: Request) -> AwsRequest:
    """The operation and its validated parameters.  Raises AwsError."""
    aws_request = _control(request) if "X-Amz-Target" in request.headers else _runtime(request)
    shape = service_model(aws_request.service).operation_model(aws_request.operation).input_shape
    if (problem := problems(aws_request.params, shape)) is not None:
        raise invalid(aws_request.service, problem)
    return aws_request


def control_response(aws_request: AwsRequest, output: Mapping[str, Any] | None) -> Response:
    """The response of a control plane operation; AssertionError if `output` does not match botocore's model."""
    shape = service_model(aws_request.service).operation_model(aws_request.operation).output_shape
    if shape is None:
        return _json(200, None)
    members = dict(output or {})
    problem = problems(members, shape)
    assert problem is None, f"{aws_request.operation}: {problem}"  # noqa: S101  a defect of the emulator
    return _json(200, members)


def error_response(error: AwsError) -> Response:
    """An error response for both protocols: the code is in the body and in a header."""
    body = {"__type": error.code, "message": error.message, "Message": error.message, **error.members}
    response = _json(error.status, body)
    response.headers["x-amzn-errortype"] = error.code
    return response


def _json(status: int, body: object) -> Response:
    data = b"" if body is None else json.dumps(body, default=_timestamp).encode()
    response = Response(data, status, content_type="application/x-amz-json-1.1")
    response.headers["x-amzn-requestid"] = str(uuid4())
    return response


def _timestamp(value: object) -> float:
    assert isinstance(value, datetime)  # noqa: S101  responses contain no other type that JSON lacks
    return value.timestamp()


def _control(request: Request) -> AwsRequest:
    operation = request.headers["X-Amz-Target"].rpartition(".")[2]
    if operation not in service_model(CONTROL).operation_names:
        raise AwsError("UnknownOperationException", f"SageMaker has no operation {operation}")
    try:
        params = json.loads(request.get_data() or b"{}")
    except ValueError as error:
        raise AwsError("SerializationException", f"the body is not valid JSON: {error}") from error
    if not isinstance(params, dict):
        raise AwsError("SerializationException", "the body is not a JSON object")
    return AwsRequest(CONTROL, operation, params)


def _runtime(request: Request) -> AwsRequest:
    model = service_model(RUNTIME)
    for name in model.operation_names:
        http = model.operation_model(name).http
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(http["requestUri"]))
        match = re.fullmatch(pattern, request.path)
        if match and request.method == http["method"]:
            shape = model.operation_model(name).input_shape
            return AwsRequest(RUNTIME, name, _from_rest(request, shape, match.groupdict()))
    raise AwsError("UnknownOperationException", f"SageMaker has nothing at {request.method} {request.path}", status=404)


def _from_rest(request: Request, shape: Any, in_path: Mapping[str, str]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for name, member in shape.members.items():
        location, wire_name = member.serialization.get("location"), member.serialization.get("name", name)
        if location == "uri":
            params[name] = unquote(in_path[wire_name])
        elif location == "header" and (value := request.headers.get(wire_name)) is not None:
            params[name] = int(value) if member.type_name == "integer" and value.isdecimal() else value
        elif name == shape.serialization.get("payload"):
            params[name] = request.get_data()
    return params
