"""What the description says of every model alike, as data: routes that are only read, headers, errors, the token."""

from __future__ import annotations

from likewise.core import errors
from likewise.core.errors import LikewiseError
from likewise.server.auth import OPEN_PATHS
from likewise.server.description.schemas import TEXT, JsonObject, as_json, object_of, ref

TAGS = [
    {"name": "predictions", "description": "MLflow's scoring protocol."},
    {"name": "health", "description": "For load balancers and people."},
    {"name": "v2", "description": "Open Inference Protocol v2."},
    {"name": "pages", "description": "What describes the service."},
]

_YES = "Yes. The body is a line break."
_VERSION = "The version, bare, as MLflow's own server prints it."
_METRICS = "Prometheus' text format; OpenMetrics where Accept asks for it."
_SAID = "Its description."
_FLAG: JsonObject = {"type": "boolean"}
_LIVE = as_json({"type": "object", "properties": {"live": _FLAG}})
_READY = as_json({"type": "object", "properties": {"ready": _FLAG}})
_MODEL_READY = as_json({"type": "object", "properties": {"name": TEXT, "ready": _FLAG}})
_HTML: JsonObject = {"text/html": {"schema": TEXT}}
_EXPOSITION: JsonObject = {"text/plain": {}, "application/openmetrics-text": {}}

READ: dict[str, tuple[str, str, str, str, JsonObject, str]] = {
    "/ping": ("ping", "health", "Whether the process lives.", _YES, {}, "405"),
    "/health": ("health", "health", "As /ping.", _YES, {}, "405"),
    "/ready": ("ready", "health", "Whether the model is warm and the server is not stopping.", _YES, {}, "405 503"),
    "/version": ("version", "health", "MLflow's version.", _VERSION, {"application/json": {}}, "405"),
    "/metrics": ("metrics", "health", "Metrics.", _METRICS, _EXPOSITION, "405"),
    "/v2": ("v2_server", "v2", "The server.", _SAID, as_json(ref("ServerMetadata")), "405"),
    "/v2/health/live": ("v2_live", "v2", "Whether it lives.", "Yes.", _LIVE, "405"),
    "/v2/health/ready": ("v2_ready", "v2", "As /ready.", "Yes.", _READY, "405 503"),
    "/v2/models/{model}": ("v2_model", "v2", "The model's tensors.", _SAID, as_json(ref("ModelMetadata")), "404 405"),
    "/v2/models/{model}/ready": ("v2_model_ready", "v2", "As /ready.", "Yes.", _MODEL_READY, "404 405 503"),
    "/": ("page", "pages", "The model, and a form that tries it.", "The page.", _HTML, "405"),
    "/docs": ("docs", "pages", "This description, to be read.", "The page.", _HTML, "405"),
    "/openapi.json": ("openapi", "pages", "This description.", "The page.", as_json({"type": "object"}), "405"),
}
"""By path, the arguments of `operation` for what is asked without a body."""

_ERRORS: dict[str, tuple[type[LikewiseError], str, str]] = {
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
_EXTRA_HEADERS: dict[str, JsonObject] = {
    "401": {"WWW-Authenticate": {"schema": TEXT}},
    "405": {"Allow": {"schema": TEXT}},
    "503": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}},
}
_HEADERS: JsonObject = {
    name: {"$ref": f"#/components/headers/{name}"}
    for name in ("X-Likewise-Bundle", "X-Likewise-Engine", "X-Request-Id")
}
_SOME_TEXT: JsonObject = {"type": "string", "minLength": 1}
ERROR_SCHEMA = object_of(
    {
        "error_code": {**_SOME_TEXT, "description": "MLflow's code, such as BAD_REQUEST."},
        "message": {**_SOME_TEXT, "description": "The cause, with the names and values that were met."},
        "remedy": {**_SOME_TEXT, "description": "What to do about it."},
    },
    {"error": {**_SOME_TEXT, "description": "Below /v2 only: message and remedy, as the protocol has them."}},
    description="What is wrong, and what to do about it.",
)
"""The one form of every error."""


def header(name: str, description: str) -> JsonObject:
    """A header that a request may send along."""
    return {"name": name, "in": "header", "description": description, "schema": TEXT}


_REQUEST_ID = "Comes back in the answer and stands in the log; 1 to 128 of A-Z a-z 0-9 . _ : -, any other is replaced."
PARAMETERS = [
    header("X-Request-Id", _REQUEST_ID),
    header("traceparent", "W3C Trace Context: its trace id stands in the log."),
]


def operation(
    name: str, tag: str, summary: str, ok: str, content: JsonObject, failures: str, **more: object
) -> JsonObject:
    """A method of a path; `ok` says what its 200 is, `content` what that holds, `failures` its other statuses."""
    answer = {"description": ok, "headers": {**_HEADERS}, **({"content": content} if content else {})}
    failed = {status: {"$ref": f"#/components/responses/{_ERRORS[status][1]}"} for status in failures.split()}
    return {"tags": [tag], "operationId": name, "summary": summary, **more, "responses": {"200": answer, **failed}}


def components(digest: str) -> JsonObject:
    """The headers of every answer, and the errors; `digest` is the bundle's."""
    request_id = "The request's own id where it sent a sane one; else its trace id, or a new one."
    headers = {
        "X-Likewise-Bundle": {"description": "The digest of the bundle that answered.", "schema": {"const": digest}},
        "X-Likewise-Engine": {"description": "The engine and its precision; `loading` before.", "schema": TEXT},
        "X-Request-Id": {"description": request_id, "schema": {**TEXT, "pattern": "^[A-Za-z0-9._:-]{1,128}$"}},
    }
    return {"headers": headers, "responses": {name: _error(status) for status, (_, name, _) in _ERRORS.items()}}


def _error(status: str) -> JsonObject:
    kind, _, text = _ERRORS[status]
    media: JsonObject = {"schema": ref("Error")}
    if status in _MESSAGES:
        message, remedy = _MESSAGES[status]
        media["example"] = {"error_code": kind.mlflow_code, "message": message, "remedy": remedy}
    headers = {**_HEADERS, **_EXTRA_HEADERS.get(status, {})}
    return {"description": text, "headers": headers, "content": {"application/json": media}}


def ask_for_token(document: JsonObject) -> None:
    """Say that every route but OPEN_PATHS wants one."""
    document["security"] = [{"bearer": []}, {"basic": []}]
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "basic": {"type": "http", "scheme": "basic", "description": "The token is the password; any user name."},
    }
    for path, item in document["paths"].items():
        held = item.get("get") or item["post"]
        if path in OPEN_PATHS:
            held["security"] = []
        else:
            held["responses"]["401"] = {"$ref": "#/components/responses/Unauthorized"}
