"""Errors as HTTP responses, all in one format."""

from __future__ import annotations

import math

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from likewise.core.errors import BodyTimeout, LikewiseError, MethodNotAllowed, RouteNotFound, Unauthorized
from likewise.server.auth import challenge
from likewise.wire import JSON


def error_body(error: LikewiseError, path: str = "") -> bytes:
    """The JSON body `{"error_code", "message", "remedy"}`, with MLflow's error code.

    Paths of the Open Inference Protocol also get `error`, which its clients read.
    """
    body = {"error_code": error.mlflow_code, "message": error.cause, "remedy": error.remedy}
    if path.startswith("/v2"):
        body = {"error": f"{error.cause} ({error.remedy})", **body}
    return orjson.dumps(body, default=str)


def error_response(error: LikewiseError, path: str = "", authorization: str = "") -> Response:
    """The response for `error`: `error_body` with its HTTP status and headers.

    authorization: the request's header of that name, on which the challenge of a 401 depends.
    """
    headers = {}
    if isinstance(error, BodyTimeout):
        headers["Connection"] = "close"  # the rest of the body may still arrive and must not be parsed as a request
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = challenge(authorization)
    return Response(error_body(error, path), error.status, headers, media_type=JSON)


async def on_http_error(request: Request, error: Exception) -> Response:
    """Exception handler for Starlette's own 404 and 405."""
    assert isinstance(error, HTTPException)  # noqa: S101  registered only for HTTPException
    path, method = request.url.path, request.method
    known: LikewiseError
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        known = MethodNotAllowed(f"{path} does not support {method}", remedy=f"use {allowed}")
    else:
        known = RouteNotFound(f"no route matches {path}", remedy="POST to /invocations; GET / shows all routes")
    response = error_response(known, path)
    response.headers.update(error.headers or {})
    return response
