"""SageMaker's two wires: JSON 1.1 for the control plane, REST for the runtime; requests in, answers and errors out.

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
    """An error as the service answers it; `members` are those that its shape has besides the message."""

    def __init__(self, code: str, message: str, *, status: int = 400, **members: object) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.members = members


@dataclass(frozen=True)
class AwsRequest:
    """One request to SageMaker, by botocore's model."""

    service: str
    operation: str
    params: Mapping[str, Any]


def scope(request: Request) -> tuple[str, str]:
    """(`service`, `region`) that the caller signed for; empty where nothing is signed."""
    found = _SCOPE.search(request.headers.get("Authorization", ""))
    return (found["service"], found["region"]) if found else ("", "")


def invalid(service_name: str, message: str) -> AwsError:
    """A request that the service refuses; the runtime has a name of its own for it."""
    return AwsError("ValidationError" if service_name == RUNTIME else "ValidationException", message)


def read_request(request: Request) -> AwsRequest:
    """The operation and its parameters, checked.  Raises AwsError."""
    asked = _control(request) if "X-Amz-Target" in request.headers else _runtime(request)
    shape = service_model(asked.service).operation_model(asked.operation).input_shape
    if (problem := problems(asked.params, shape)) is not None:
        raise invalid(asked.service, problem)
    return asked


def answer(asked: AwsRequest, output: Mapping[str, Any] | None) -> Response:
    """The answer of an operation of the control plane; AssertionError where it is not as botocore's model has it."""
    shape = service_model(asked.service).operation_model(asked.operation).output_shape
    if shape is None:
        return _json(200, None)
    said = dict(output or {})
    problem = problems(said, shape)
    assert problem is None, f"{asked.operation}: {problem}"  # noqa: S101  ours to hold, not the caller's
    return _json(200, said)


def error_answer(error: AwsError) -> Response:
    """As both protocols have errors: the code in the body and in a header."""
    body = {"__type": error.code, "message": error.message, "Message": error.message, **error.members}
    response = _json(error.status, body)
    response.headers["x-amzn-errortype"] = error.code
    return response


def _json(status: int, body: object) -> Response:
    data = b"" if body is None else json.dumps(body, default=_seconds).encode()
    response = Response(data, status, content_type="application/x-amz-json-1.1")
    response.headers["x-amzn-requestid"] = str(uuid4())
    return response


def _seconds(value: object) -> float:
    assert isinstance(value, datetime)  # noqa: S101  nothing else stands in an answer
    return value.timestamp()


def _control(request: Request) -> AwsRequest:
    operation = request.headers["X-Amz-Target"].rpartition(".")[2]
    if operation not in service_model(CONTROL).operation_names:
        raise AwsError("UnknownOperationException", f"SageMaker has no operation {operation}")
    try:
        params = json.loads(request.get_data() or b"{}")
    except ValueError as error:
        raise AwsError("SerializationException", f"the body is no JSON: {error}") from error
    if not isinstance(params, dict):
        raise AwsError("SerializationException", "the body is no JSON object")
    return AwsRequest(CONTROL, operation, params)


def _runtime(request: Request) -> AwsRequest:
    model = service_model(RUNTIME)
    for name in model.operation_names:
        http = model.operation_model(name).http
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(http["requestUri"]))
        found = re.fullmatch(pattern, request.path)
        if found and request.method == http["method"]:
            shape = model.operation_model(name).input_shape
            return AwsRequest(RUNTIME, name, _from_rest(request, shape, found.groupdict()))
    raise AwsError("UnknownOperationException", f"SageMaker has nothing at {request.method} {request.path}", status=404)


def _from_rest(request: Request, shape: Any, in_path: Mapping[str, str]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for name, member in shape.members.items():
        place, wire_name = member.serialization.get("location"), member.serialization.get("name", name)
        if place == "uri":
            params[name] = unquote(in_path[wire_name])
        elif place == "header" and (said := request.headers.get(wire_name)) is not None:
            params[name] = int(said) if member.type_name == "integer" and said.isdecimal() else said
        elif name == shape.serialization.get("payload"):
            params[name] = request.get_data()
    return params
