"""Errors in the responses of deployments."""

from __future__ import annotations

import json
from typing import Any

from likewise.core.errors import (
    BadRequest,
    BodyTimeout,
    BodyTooLarge,
    DeadlineExceeded,
    DeployFailed,
    LikewiseError,
    Overloaded,
    RouteNotFound,
    RowRefused,
    Unauthorized,
    UnsupportedContentType,
)
from likewise.targets.base import Response

_KINDS = (
    BadRequest,
    BodyTimeout,
    BodyTooLarge,
    DeadlineExceeded,
    Overloaded,
    RouteNotFound,
    RowRefused,
    Unauthorized,
    UnsupportedContentType,
)
_BY_STATUS: dict[int, type[LikewiseError]] = {kind.status: kind for kind in _KINDS}
TEXT = 500  # characters of a response that is not in Likewise's format


def error_of(name: str, response: Response) -> LikewiseError:
    """The error that a deployment responded with; DeployFailed only if the request is not at fault.

    Its `details` have the response.
    """
    status, document = response.status, _document(response)
    kind = _BY_STATUS.get(status) or (BadRequest if 400 <= status < 500 else DeployFailed)
    known = document if isinstance(document, dict) else {}
    message = known.get("message") or response.body.decode(errors="replace").strip()[:TEXT] or "an empty response"
    remedy = known.get("remedy") or ("correct the request" if status < 500 else f"run: likewise status {name}")
    error = kind(f"{name} responded with status {status}: {message}", remedy=str(remedy))
    error.details = {"status": status, "response": document}
    return error


def predictions_in(document: Any) -> Any:
    """The predictions in the JSON of a response, which has them under a key or is them."""
    return document["predictions"] if isinstance(document, dict) and "predictions" in document else document


def _document(response: Response) -> object:
    """The body as JSON, else as text."""
    text = response.body.decode(errors="replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
