"""The OpenAPI 3.1 document: `openapi.json`, with what depends on the model and its signature.

Source: OpenAPI Specification 3.1; Open Inference Protocol v2, HTTP/REST, and its Binary Tensor Data Extension.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import orjson

from likewise.server.auth import OPEN_PATHS
from likewise.server.description.examples import Example, example_of
from likewise.server.description.form_schemas import request_schemas, response_schemas
from likewise.server.description.schemas import JsonObject, ref
from likewise.server.model import ServedModel, mlflow_version
from likewise.wire.content import CSV, JSON, PARQUET
from likewise.wire.oip import model_metadata
from likewise.wire.oip.datatypes import DATATYPES
from likewise.wire.oip.declared import INPUT, datatype_of, named

_STATIC = Path(__file__).with_name("openapi.json")
_AUTHENTICATION = "All routes except the health checks require a token. "


def describe(model: ServedModel, *, url: str, auth: bool, body_limit: int) -> JsonObject:
    """The OpenAPI document of the service at `url`, as plain JSON values.

    auth: whether a token is required; body_limit: largest request body in bytes.
    """
    document: JsonObject = orjson.loads(_STATIC.read_bytes())
    texts = {
        "model": model.model_name,
        "name": model.name,
        "digest": model.digest,
        "build": model.build,
        "version": model.version or mlflow_version(),
        "authentication": _AUTHENTICATION if auth else "",
        "body_limit": body_limit,
    }
    document["info"] = {key: text.format(**texts) for key, text in document["info"].items()}
    document["servers"] = [{"url": url.rstrip("/") or "/"}]
    components, paths = document["components"], document["paths"]
    components["headers"]["X-Likewise-Bundle"]["schema"] = {"const": model.digest}
    components["headers"]["X-Likewise-Build"]["schema"] = {"const": model.build}
    _add_model(model, paths, components["schemas"])
    _add_common_responses(paths, components)
    _add_names(model, paths)
    if auth:
        _require_token(document)
    else:
        del components["securitySchemes"], components["responses"]["Unauthorized"]
    return document


def _add_model(model: ServedModel, paths: JsonObject, schemas: JsonObject) -> None:
    """Add the schemas and examples of the model's requests and responses."""
    own, example = request_schemas(model.signature), example_of(model)
    schemas.update(own | response_schemas(model.signature.outputs))
    schemas["Datatype"]["enum"] = list(DATATYPES)
    metadata = model_metadata(
        model.signature, name=model.model_name, version=model.version or None, platform="likewise"
    )
    schemas["ModelMetadata"]["examples"] = [metadata]
    inputs = named(model.signature.inputs, INPUT).items()
    names = ", ".join(f"`{name}` ({datatype_of(field) or 'BYTES'})" for name, field in inputs)
    schemas["InputTensor"]["description"] = f"The model's inputs: {names}." if names else "An input."
    paths["/invocations"]["post"]["requestBody"]["content"] = _contents(example, csv="Csv" in own)
    if example and example.infer:
        infer = paths["/v2/models/{model}/infer"]["post"]["requestBody"]["content"][JSON]
        infer["examples"] = {"rows": {"value": example.infer}}


def _contents(example: Example | None, *, csv: bool) -> JsonObject:
    """The request content of `/invocations` by media type."""
    mlflow_1 = {"split (MLflow 1)": example.split, "records (MLflow 1)": example.records} if example else {}
    contents = {JSON: _media(ref("InvocationRequest"), {**(example.bodies() if example else {}), **mlflow_1})}
    if csv:
        contents[CSV] = _media(ref("Csv"), {"csv": example and example.csv})
    if find_spec("pyarrow") is not None:
        contents[PARQUET] = {"schema": {"description": "A Parquet file with the model's columns."}}
    return contents


def _media(schema: JsonObject, examples: JsonObject) -> JsonObject:
    values = {name: {"value": value} for name, value in examples.items() if value is not None}
    return {"schema": schema, **({"examples": values} if values else {})}


def _add_common_responses(paths: JsonObject, components: JsonObject) -> None:
    """Add what all operations have: a response to other methods, and the headers of all responses."""
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in components["headers"]}
    for item in paths.values():
        for operation in item.values():
            responses = operation["responses"]
            responses["405"] = {"$ref": "#/components/responses/MethodNotAllowed"}
            responses["200"]["headers"] = headers | responses["200"].get("headers", {})
    for response in components["responses"].values():
        response["headers"] = headers | response.get("headers", {})


def _add_names(model: ServedModel, paths: JsonObject) -> None:
    """Add the parameters of paths, which allow only the served model and version, and the paths with a version."""
    for path in [path for path in paths if "{model}" in path]:
        item = paths[path]
        if model.version:
            ((method, operation),) = item.items()
            versioned = {**operation, "operationId": f"{operation['operationId']}_of_version"}
            parameters = [_parameter("model", model.model_name), _parameter("version", model.version)]
            long = path.replace("{model}", "{model}/versions/{version}")
            paths[long] = {"parameters": parameters, method: versioned}
        item["parameters"] = [_parameter("model", model.model_name)]


def _parameter(name: str, value: str) -> JsonObject:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "const": value}}


def _require_token(document: JsonObject) -> None:
    """Require a token for every route except OPEN_PATHS."""
    document["security"] = [{"bearer": []}, {"basic": []}]
    for path, item in document["paths"].items():
        operation = item.get("get") or item["post"]
        if path in OPEN_PATHS:
            operation["security"] = []
        else:
            operation["responses"]["401"] = {"$ref": "#/components/responses/Unauthorized"}
