"""What the description says of every answer: headers, and the errors with their statuses."""

from __future__ import annotations

from dataclasses import dataclass

from likewise.core import errors
from likewise.core.errors import LikewiseError
from likewise.server.description.schemas import Json, ref
from likewise.server.model import ServedModel

_HEADERS = ("X-Likewise-Bundle", "X-Likewise-Engine", "X-Request-Id")

ERRORS: dict[str, tuple[type[LikewiseError], str, str]] = {
    "400": (errors.BadRequest, "BadRequest", "What was sent is wrong; the message names the column and the row."),
    "401": (errors.Unauthorized, "Unauthorized", "No token was sent, or none that the server knows."),
    "404": (errors.RouteNotFound, "NotFound", "There is no such model or version here."),
    "405": (errors.MethodNotAllowed, "MethodNotAllowed", "The path takes another method; Allow names it."),
    "408": (errors.BodyTimeout, "Timeout", "The body did not arrive in time."),
    "413": (errors.BodyTooLarge, "TooLarge", "The body is larger than the server takes."),
    "415": (errors.UnsupportedContentType, "UnsupportedType", "A content type or encoding that is not read here."),
    "422": (errors.RowRefused, "RowRefused", "The model, or its signature, refuses a row; the message names it."),
    "500": (errors.ModelFailed, "ModelFailed", "The model is broken: it fails on whatever it is asked."),
    "503": (errors.Overloaded, "Unavailable", "The model loads, the server stops, or more waits than can be answered."),
    "504": (errors.DeadlineExceeded, "DeadlineExceeded", "The answer did not come within the deadline."),
}
"""Status to its error, its name among the components, and what it means."""

_MESSAGES = {
    "400": (
        "inputs, row 0, column 'text': expected a string, got 5 (an integer)",
        "correct the value; rows count from 0",
    ),
    "401": ("the token is none that this server knows", "send the header Authorization: Bearer TOKEN"),
    "422": ("row 0: the model raised ValueError: no such code", "correct the row; rows count from 0"),
    "503": ("the model is being loaded", "ask again in a moment"),
}
_EXTRA: dict[str, Json] = {
    "401": {"WWW-Authenticate": {"schema": {"type": "string"}}},
    "405": {"Allow": {"schema": {"type": "string"}}},
    "503": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}},
}


def error_schema() -> Json:
    """The one form of every error."""
    text = {"type": "string", "minLength": 1}
    return {
        "description": "What is wrong, and what to do about it.",
        "type": "object",
        "properties": {
            "error_code": {**text, "description": "MLflow's code, such as BAD_REQUEST."},
            "message": {**text, "description": "The cause, with the names and values that were met."},
            "remedy": {**text, "description": "What to do about it."},
            "error": {**text, "description": "Below /v2 only: message and remedy, as the protocol has them."},
        },
        "required": ["error_code", "message", "remedy"],
    }


def _error(status: str, kind: type[LikewiseError], text: str) -> Json:
    media: Json = {"schema": ref("Error")}
    if status in _MESSAGES:
        message, remedy = _MESSAGES[status]
        media["example"] = {"error_code": kind.mlflow_code, "message": message, "remedy": remedy}
    return {
        "description": text,
        "headers": {**_references(), **_EXTRA.get(status, {})},
        "content": {"application/json": media},
    }


def _references() -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}


@dataclass(frozen=True, slots=True)
class Answers:
    """Writes operations' answers; `auth` adds the 401."""

    auth: bool

    def components(self) -> Json:
        """The responses that `errors` refers to."""
        asked = {status: held for status, held in ERRORS.items() if self.auth or status != "401"}
        return {name: _error(status, kind, text) for status, (kind, name, text) in asked.items()}

    def headers(self, model: ServedModel) -> Json:
        """The components of the headers that every answer has."""
        digest, engine, request_id = _HEADERS
        return {
            digest: {"description": "The digest of the bundle that answered.", "schema": {"const": model.digest}},
            engine: {"description": "The engine and its precision; `loading` before.", "schema": {"type": "string"}},
            request_id: {
                "description": "The request's own id where it sent a sane one; else its trace id, or a new one.",
                "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
            },
        }

    def parameters(self) -> list[Json]:
        """What a request may send along."""
        return [
            {
                "name": "X-Request-Id",
                "in": "header",
                "description": "Comes back in the answer and stands in the log; 1 to 128 of A-Z a-z 0-9 . _ : -, "
                "any other is replaced.",
                "schema": {"type": "string"},
            },
            {
                "name": "traceparent",
                "in": "header",
                "description": "W3C Trace Context: its trace id stands in the log.",
                "schema": {"type": "string"},
            },
        ]

    def ok(self, text: str, content: Json | None = None) -> Json:
        """A 200."""
        return {"description": text, "headers": _references(), **({"content": content} if content else {})}

    def errors(self, *statuses: str, is_open: bool = False) -> Json:
        """References to errors, in order; 401 among them unless the route is open to everybody."""
        asked = self.auth and not is_open
        held = sorted([*statuses, "401"]) if asked else statuses
        return {status: {"$ref": f"#/components/responses/{ERRORS[status][1]}"} for status in held}

    def read(self, name: str, tag: str, summary: str, ok: Json, failures: Json, *, is_open: bool = False) -> Json:
        """An operation without a body; `is_open` where it asks for no token."""
        return {
            "tags": [tag],
            "operationId": name,
            "summary": summary,
            **({"security": []} if is_open and self.auth else {}),
            "responses": {"200": ok, **failures},
        }
