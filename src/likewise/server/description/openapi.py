"""The OpenAPI 3.1 document, typed by the model's own signature.

Source: OpenAPI Specification 3.1; Open Inference Protocol v2 (see `openapi_v2.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from likewise.core.signature import Field, Signature
from likewise.server.description import common
from likewise.server.description.examples import Example, example_of
from likewise.server.description.form_schemas import document_schema, forms, params_schema
from likewise.server.description.openapi_v2 import infer_operation, v2_schemas
from likewise.server.description.schemas import TEXT, TYPES, JsonObject, array_of, as_json, nullable, object_of, ref
from likewise.server.model import ServedModel, mlflow_version
from likewise.wire.content import CSV, JSON, PARQUET
from likewise.wire.document import KEYS
from likewise.wire.mlflow import FORMS

_BARE = re.compile(r"[^\",\r\n]+")  # an unquoted CSV field
_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}/]")  # characters to escape in a pattern
_OUTPUTS: dict[str, JsonObject] = {
    "string": TEXT,
    "boolean": {"type": ["boolean", "integer"]},
    **{kind: {"type": "integer"} for kind in ("integer", "long")},
    **{kind: {"type": "number"} for kind in ("float", "double")},
}


def describe(model: ServedModel, *, url: str, auth: bool, body_limit: int) -> JsonObject:
    """The OpenAPI document of the service at `url`, as plain JSON values.

    auth: whether a token is required; body_limit: largest request body in bytes.
    """
    bodies = _bodies(model.signature)
    document: JsonObject = {
        "openapi": "3.1.0",
        "info": _info(model, body_limit, auth=auth),
        "servers": [{"url": url.rstrip("/") or "/"}],
        "tags": common.TAGS,
        "paths": _paths(model, bodies),
        "components": common.components(model.digest, model.build),
    }
    if auth:
        common.require_token(document)
    else:
        del document["components"]["responses"]["Unauthorized"]
    document["components"]["schemas"] = _schemas(model, bodies)
    return document


def _schemas(model: ServedModel, bodies: JsonObject) -> JsonObject:
    """The model's own schemas, and the types that they refer to."""
    own = {
        "Error": common.ERROR_SCHEMA,
        "Answer": _answer(model.signature.outputs),
        "Params": params_schema(model.signature),
        **bodies,
        **v2_schemas(model),
    }
    text = json.dumps(own)
    return {name: schema for name, schema in TYPES.items() if f'"{ref(name)["$ref"]}"' in text} | own


def _paths(model: ServedModel, bodies: JsonObject) -> JsonObject:
    example = example_of(model)
    operations = {
        "/invocations": _invocations(bodies, example),
        **{path: common.operation(*arguments) for path, arguments in common.READ.items()},
        "/v2/models/{model}/infer": infer_operation(example),
    }
    for path, entry in list(operations.items()) if model.version else ():  # versioned paths need a version
        if "{model}" in path:
            versioned = path.replace("{model}", "{model}/versions/{version}")
            operations[versioned] = {**entry, "operationId": f"{entry['operationId']}_version"}
    names = {"model": model.model_name, "version": model.version}
    return {path: _item(path, entry, names) for path, entry in operations.items()}


def _item(path: str, operation: JsonObject, names: Mapping[str, str]) -> JsonObject:
    """One path item; its parameters allow only the served model and version."""
    schemas = {name: {"type": "string", "enum": [value]} for name, value in names.items() if f"{{{name}}}" in path}
    parameters = [{"name": name, "in": "path", "required": True, "schema": schema} for name, schema in schemas.items()]
    method = "post" if "requestBody" in operation else "get"
    return {**({"parameters": parameters} if parameters else {}), method: operation}


def _info(model: ServedModel, body_limit: int, *, auth: bool) -> JsonObject:
    authentication = "All routes except the health checks require a token. " if auth else ""
    return {
        "title": model.model_name,
        "summary": f"Predictions of {model.name}.",
        "description": (
            f"Model `{model.digest}`, build `{model.build}`. {authentication}Request bodies are limited to "
            f"{body_limit:,} bytes, as sent and decompressed; gzip and deflate are supported. Errors are JSON with an "
            "MLflow error code, a message that names the column and the row (rows count from 0), and a remedy. On any "
            "route, malformed headers result in 400, too large ones in 431, and too slow ones in 408."
        ),
        "version": model.version or mlflow_version(),
    }


def _invocations(bodies: JsonObject, example: Example | None) -> JsonObject:
    return common.operation(
        "invocations",
        "predictions",
        "Predictions for rows.",
        "The predictions, one per row.",
        as_json(ref("Answer")),
        "400 405 408 413 415 422 500 503 504",
        description=(
            'The response matches the form of the request: `{"predictions": …}` for MLflow 2 and 3, the bare '
            "predictions for MLflow 1. Columns may be in any order; unknown columns are ignored. Without a "
            "Content-Type, the body is read as JSON. If the model rejects a row, the response is a 422 that names it."
        ),
        parameters=common.PARAMETERS,
        requestBody={"required": True, "content": _contents(bodies, example)},
    )


def _contents(bodies: JsonObject, example: Example | None) -> JsonObject:
    """The request content by media type; `bodies` are the schemas that apply to the model."""
    split, records, text = (example.split, example.records, example.csv) if example else (None, None, None)
    own = example.bodies() if example else {}
    any_of = {"anyOf": [ref(name) for name in bodies if name != "Csv"]}
    contents = {JSON: _media(any_of, {**own, "split (MLflow 1)": split, "records (MLflow 1)": records})}
    typed = {
        "Split": (f"{JSON}; format=pandas-split", split),
        "Records": (f"{JSON}; format=pandas-records", records),
        "Csv": (CSV, text),
    }
    for name, (media, shown) in typed.items():
        if name in bodies:
            contents[media] = _media(ref(name), {name.lower(): shown})
    if find_spec("pyarrow") is not None:
        contents[PARQUET] = {"schema": {"description": "A Parquet file with the model's columns."}}
    return contents


def _media(schema: JsonObject, examples: JsonObject) -> JsonObject:
    values = {name: {"value": value} for name, value in examples.items() if value is not None}
    return {"schema": schema, **({"examples": values} if values else {})}


def _bodies(signature: Signature) -> dict[str, JsonObject]:
    """The schemas of the bodies of `/invocations`, for the forms that apply to the signature."""
    by_form = forms(signature)
    bodies = {
        "DataframeSplit": _body("dataframe_split", by_form.split, f"MLflow 2 and 3: {_SPLIT}"),
        "DataframeRecords": _body("dataframe_records", by_form.records, f"MLflow 2 and 3: {_RECORDS}"),
        "Instances": _body("instances", by_form.inputs, "Records, or plain values if the model takes one column."),
        "Inputs": _body("inputs", by_form.inputs, "Same as `instances`, or columns of values of equal length."),
        "Document": document_schema(signature),
        "Split": by_form.split and {"description": f"MLflow 1: {_SPLIT}", **by_form.split},
        "Records": by_form.records and {"description": f"MLflow 1: {_RECORDS}", **by_form.records},
        "Csv": _csv(signature),
    }
    return {name: schema for name, schema in bodies.items() if schema is not None}


_SPLIT = "pandas' split orient: the column names once, then each row's values in that order."
_RECORDS = "one record per row; a key missing from some records is null there."
_CSV_TEXT = (
    "RFC 4180 with a header (`text/csv; header=absent`: without one), typed by the signature. An empty field is the "
    "empty string in a column of strings, and null in any other. Lists and objects are written as JSON."
)
_CELLS = {
    "string": '("([^"]|"")*"|[^",\\r\\n]+)',
    "long": "[+-]?[0-9]{1,18}",
    "integer": "[+-]?[0-9]{1,9}",
    "double": "[+-]?[0-9]{1,15}(\\.[0-9]{0,40})?",
    "float": "[+-]?[0-9]{1,7}(\\.[0-9]{0,40})?",
    "boolean": "([Tt]rue|[Ff]alse)",
}


def _csv(signature: Signature) -> JsonObject | None:
    """The schema of a CSV body; it has a pattern if all columns have plain types."""
    if signature.columns is None:
        return None
    schema: JsonObject = {"type": "string", "description": _CSV_TEXT}
    fields = signature.inputs or ()
    names = [str(field.name) for field in fields]
    if any(field.kind not in _CELLS for field in fields) or not all(map(_BARE.fullmatch, names)):
        return schema
    head = ",".join(_SPECIAL.sub(r"\\\g<0>", name) for name in names)
    line = ",".join(_CELLS[field.kind] for field in fields)
    return {**schema, "pattern": f"^{head}(\\r?\\n{line})*(\\r?\\n)?$"}


def _body(form: str, schema: JsonObject | None, text: str) -> JsonObject | None:
    """An object with the key `form`, optional params, and no key of another form."""
    others = [{"required": [name]} for name in (*FORMS, *sorted(KEYS)) if name != form]
    rule: JsonObject = {"not": {"anyOf": others}}
    return schema and object_of({form: schema}, {"params": ref("Params")}, description=text, **rule)


def _answer(outputs: Iterable[Field] | None) -> JsonObject:
    predictions = _predictions(outputs)
    return {
        "description": "The predictions under the key `predictions`, or bare for MLflow 1 requests.",
        "anyOf": [object_of({"predictions": predictions}), predictions],
    }


def _predictions(outputs: Iterable[Field] | None) -> JsonObject:
    """The schema of the predictions, from the signature's outputs; NaN and infinity are returned as null."""
    fields = list(outputs or ())
    if not fields or any(field.name is None or field.kind not in _OUTPUTS for field in fields):
        return {}
    members = {str(field.name): nullable(_OUTPUTS[field.kind]) for field in fields}
    record = {"type": "object", "properties": members}
    one = {"anyOf": [record, next(iter(members.values()))]} if len(fields) == 1 else record
    return {"anyOf": [array_of(one), {"type": "object"}]}
