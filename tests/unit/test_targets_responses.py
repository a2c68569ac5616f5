"""Error responses of deployments as errors: those of the caller are not reported as the deployment's."""

from __future__ import annotations

import json

import pytest

from likewise.targets.base import Response
from likewise.targets.responses import error_of


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "BAD_REQUEST"),
        (401, "UNAUTHORIZED"),
        (404, "ROUTE_NOT_FOUND"),
        (413, "BODY_TOO_LARGE"),
        (415, "UNSUPPORTED_CONTENT_TYPE"),
        (418, "BAD_REQUEST"),
        (422, "ROW_REFUSED"),
        (500, "DEPLOY_FAILED"),
        (503, "OVERLOADED"),
        (504, "DEADLINE_EXCEEDED"),
    ],
)
def test_status_decides_whose_fault_it_is(status: int, code: str) -> None:
    body = {"error_code": "X", "message": "row 3 has no text", "remedy": "give it one"}
    error = error_of("one", Response(status, "application/json", json.dumps(body).encode()))
    assert error.as_dict() == {
        "code": code,
        "cause": f"one responded with status {status}: row 3 has no text",
        "remedy": "give it one",
    }
    assert error.details == {"status": status, "response": body}


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b"\xff", b"[1]", b"null"])
def test_response_in_another_format_is_quoted(body: bytes) -> None:
    error = error_of("one", Response(502, "text/html", body))
    assert (error.code, error.remedy) == ("DEPLOY_FAILED", "run: likewise status one")
    assert error.cause.startswith("one responded with status 502: ")
