"""The parts of the OpenAPI document that do not depend on the model: GET routes, headers, errors, authentication."""

from __future__ import annotations

from likewise.core import errors
from likewise.core.errors import LikewiseError
from likewise.server.auth import OPEN_PATHS
from likewise.server.description.schemas import TEXT, JsonObject, as_json, object_of, ref

TAGS = [
    {"name": "predictions", "description": "MLflow's scoring protocol."},
    {"name": "health", "description": "For load balancers and people."},
    {"name": "v2", "description": "Open Inference Protocol v2."},
    {"name": "pages", "description": "Pages and documents that describe the service."},
]

_OK = "OK. The body is a line break."
_VERSION = "The version as plain text, as MLflow's own server returns it."
_METRICS = "Prometheus text format, or OpenMetrics if requested in Accept."
_METADATA = "The metadata."
_FLAG: JsonObject = {"type": "boolean"}
_LIVE = as_json({"type": "object", "properties": {"live": _FLAG}})
_READY = as_json({"type": "object", "properties": {"ready": _FLAG}})
_MODEL_READY = as_json({"type": "object", "properties": {"name": TEXT, "ready": _FLAG}})
_HTML: JsonObject = {"text/html": {"schema": TEXT}}
_EXPOSITION: JsonObject = {"text/plain": {}, "application/openmetrics-text": {}}

READ: dict[str, tuple[str, str, str, str, JsonObject, str]] = {
    "/ping": ("ping", "health", "Same as /ready, as clients of MLflow's server expect.", _OK, {}, "405 503"),
    "/health": ("health", "health", "Same as /ping.", _OK, {}, "405 503"),
    "/ready": ("ready", "health", "Whether the model is warm and the server is not stopping.", _OK, {}, "405 503"),
    "/version": ("version", "health", "The MLflow version.", _VERSION, {"application/json": {}}, "405"),
    "/metrics": ("metrics", "health", "Metrics.", _METRICS, _EXPOSITION, "405"),
    "/v2": ("v2_server", "v2", "Server metadata.", _METADATA, as_json(ref("ServerMetadata")), "405"),
    "/v2/health/live": ("v2_live", "v2", "Whether the process is alive.", "OK.", _LIVE, "405"),
    "/v2/health/ready": ("v2_ready", "v2", "Same as /ready.", "OK.", _READY, "405 503"),
    "/v2/models/{model}": ("v2_model", "v2", "Model metadata.", _METADATA, as_json(ref("ModelMetadata")), "404 405"),
    "/v2/models/{model}/ready": ("v2_model_ready", "v2", "Same as /ready.", "OK.", _MODEL_READY, "404 405 503"),
    "/": ("page", "pages", "A page about the model, with a form to try it.", "The page.", _HTML, "405"),
    "/docs": ("docs", "pages", "API documentation (Swagger UI).", "The page.", _HTML, "405"),
    "/bundle.json": (
        *("bundle", "pages", "The model, its signature and example, and facts of its bundle.", "The facts."),
        *(as_json({"type": "object"}), "405"),
    ),
    "/openapi.json": ("openapi", "pages", "This document.", "The document.", as_json({"type": "object"}), "405"),
}
"""The arguments of `operation` for each GET route, by path."""

_ERRORS: dict[str, tuple[type[LikewiseError], str, str]] = {
    "400": (errors.BadRequest, "BadRequest", "The request is invalid; the message names the column and the row."),
    "401": (errors.Unauthorized, "Unauthorized", "The token is missing or not valid."),
    "404": (errors.RouteNotFound, "NotFound", "There is no such model or version."),
    "405": (errors.MethodNotAllowed, "MethodNotAllowed", "The path does not support this method; see Allow."),
    "408": (errors.BodyTimeout, "Timeout", "The body did not arrive in time."),
    "413": (errors.BodyTooLarge, "TooLarge", "The body exceeds the server's size limit."),
    "415": (errors.UnsupportedContentType, "UnsupportedType", "The content type or encoding is not supported."),
    "422": (errors.RowRefused, "RowRefused", "The model, or its signature, rejects a row; the message names it."),
    "500": (errors.ModelFailed, "ModelFailed", "The model is broken: it fails on every input."),
    "503": (errors.Overloaded, "Unavailable", "The model is loading, or the server is stopping or overloaded."),
    "504": (errors.DeadlineExceeded, "DeadlineExceeded", "The prediction was not ready within the deadline."),
}
"""By status: error class, name among the components, and description."""

_MESSAGES = {
    "400": (
        "inputs, row 0, column 'text': expected a string, got 5 (an integer)",
        "correct the value; rows count from 0",
    ),
    "401": ("the token is not valid for this server", "send the header Authorization: Bearer TOKEN"),
    "422": ("row 0: the model raised ValueError: no such code", "correct the row; rows count from 0"),
    "503": ("the model is being loaded", "try again in a moment"),
}
_EXTRA_HEADERS: dict[str, JsonObject] = {
    "401": {"WWW-Authenticate": {"schema": TEXT}},
    "405": {"Allow": {"schema": TEXT}},
    "503": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}},
}
_HEADERS: JsonObject = {
    name: {"$ref": f"#/components/headers/{name}"}
    for name in ("X-Likewise-Bundle", "X-Likewise-Build", "X-Likewise-Engine", "X-Request-Id")
}
_SOME_TEXT: JsonObject = {"type": "string", "minLength": 1}
ERROR_SCHEMA = object_of(
    {
        "error_code": {**_SOME_TEXT, "description": "MLflow's code, such as BAD_REQUEST."},
        "message": {**_SOME_TEXT, "description": "The cause, with the names and values received."},
        "remedy": {**_SOME_TEXT, "description": "What to do about it."},
    },
    {"error": {**_SOME_TEXT, "description": "Only below /v2: message and remedy in one string."}},
    description="An error: its cause and how to fix it.",
)
"""The schema of all errors."""


def header(name: str, description: str) -> JsonObject:
    """An optional request header."""
    return {"name": name, "in": "header", "description": description, "schema": TEXT}


_REQUEST_ID = "Returned in the response and logged; 1 to 128 of A-Z a-z 0-9 . _ : -, anything else is replaced."
PARAMETERS = [
    header("X-Request-Id", _REQUEST_ID),
    header("traceparent", "W3C Trace Context; its trace id is logged."),
]


def operation(
    name: str, tag: str, summary: str, ok: str, content: JsonObject, failures: str, **more: object
) -> JsonObject:
    """An operation object; `ok` describes the 200 response, `content` is its content, `failures` are other statuses."""
    success = {"description": ok, "headers": {**_HEADERS}, **({"content": content} if content else {})}
    failed = {status: {"$ref": f"#/components/responses/{_ERRORS[status][1]}"} for status in failures.split()}
    return {"tags": [tag], "operationId": name, "summary": summary, **more, "responses": {"200": success, **failed}}


def components(digest: str, build: str) -> JsonObject:
    """The components for response headers and errors.  digest, build: of the bundle."""
    request_id = "The request's own id if it is valid; else its trace id, or a new id."
    headers = {
        "X-Likewise-Bundle": {"description": "The digest of the served model.", "schema": {"const": digest}},
        "X-Likewise-Build": {"description": "The digest of the served build.", "schema": {"const": build}},
        "X-Likewise-Engine": {"description": "The engine and its precision, or `loading`.", "schema": TEXT},
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


def require_token(document: JsonObject) -> None:
    """Add token authentication to every route of `document` except OPEN_PATHS."""
    document["security"] = [{"bearer": []}, {"basic": []}]
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "basic": {"type": "http", "scheme": "basic", "description": "The token is the password; any user name."},
    }
    for path, item in document["paths"].items():
        entry = item.get("get") or item["post"]
        if path in OPEN_PATHS:
            entry["security"] = []
        else:
            entry["responses"]["401"] = {"$ref": "#/components/responses/Unauthorized"}
