"""The API described: OpenAPI 3.1, typed by the model's own signature.

Source: OpenAPI Specification 3.1; Open Inference Protocol v2 (`openapi_v2.py` has its part).
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

_BARE = re.compile(r"[^\",\r\n]+")  # a CSV's field without quotes
_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}/]")  # in a pattern
_OUTPUTS: dict[str, JsonObject] = {
    "string": TEXT,
    "boolean": {"type": ["boolean", "integer"]},
    **{kind: {"type": "integer"} for kind in ("integer", "long")},
    **{kind: {"type": "number"} for kind in ("float", "double")},
}


def describe(model: ServedModel, *, url: str, auth: bool, body_limit: int) -> JsonObject:
    """The OpenAPI document of the service at `url`, as plain JSON values.

    auth: whether a token is asked for; body_limit: bytes of a request's body.
    """
    bodies = _bodies(model.signature)
    document: JsonObject = {
        "openapi": "3.1.0",
        "info": _info(model, body_limit, auth=auth),
        "servers": [{"url": url.rstrip("/") or "/"}],
        "tags": common.TAGS,
        "paths": _paths(model, bodies),
        "components": common.components(model.digest),
    }
    if auth:
        common.ask_for_token(document)
    else:
        del document["components"]["responses"]["Unauthorized"]
    document["components"]["schemas"] = _schemas(model, bodies)
    return document


def _schemas(model: ServedModel, bodies: JsonObject) -> JsonObject:
    """Those of the model, and the types that they refer to."""
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
    for path, held in list(operations.items()) if model.version else ():  # without one there are no such paths
        if "{model}" in path:
            versioned = path.replace("{model}", "{model}/versions/{version}")
            operations[versioned] = {**held, "operationId": f"{held['operationId']}_version"}
    names = {"model": model.model_name, "version": model.version}
    return {path: _item(path, held, names) for path, held in operations.items()}


def _item(path: str, held: JsonObject, names: Mapping[str, str]) -> JsonObject:
    """One path; the model here is the only one that it may name."""
    asked = {name: {"type": "string", "enum": [value]} for name, value in names.items() if f"{{{name}}}" in path}
    known = [{"name": name, "in": "path", "required": True, "schema": schema} for name, schema in asked.items()]
    method = "post" if "requestBody" in held else "get"
    return {**({"parameters": known} if known else {}), method: held}


def _info(model: ServedModel, body_limit: int, *, auth: bool) -> JsonObject:
    who = "Every route but the health routes asks for a token. " if auth else ""
    return {
        "title": model.model_name,
        "summary": f"{model.name}, served with the same answer everywhere.",
        "description": (
            f"Bundle `{model.digest}`. {who}A request's body may have {body_limit:,} bytes, also when it is "
            "unpacked: gzip and deflate are read. An error is JSON with a code of MLflow's, a message that names the "
            "column and the row (rows count from 0), and a remedy. A request whose headers are malformed gets 400, "
            "too large 431, too slow 408, on any route."
        ),
        "version": model.version or mlflow_version(),
    }


def _invocations(bodies: JsonObject, example: Example | None) -> JsonObject:
    return common.operation(
        "invocations",
        "predictions",
        "Predictions for rows.",
        "The predictions, a row each.",
        as_json(ref("Answer")),
        "400 405 408 413 415 422 500 503 504",
        description=(
            'Answered in the form of the request: `{"predictions": …}` for MLflow 2 and 3, the bare predictions for '
            "the forms of MLflow 1. Columns may come in any order; those that the model does not know are dropped. A "
            "missing Content-Type is read as JSON. A row that the model refuses makes the request a 422 that names it."
        ),
        parameters=common.PARAMETERS,
        requestBody={"required": True, "content": _contents(bodies, example)},
    )


def _contents(bodies: JsonObject, example: Example | None) -> JsonObject:
    """By content type; `bodies` are the schemas that the model has."""
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
        contents[PARQUET] = {"schema": {"description": "A Parquet file, with the columns of the model."}}
    return contents


def _media(schema: JsonObject, examples: JsonObject) -> JsonObject:
    held = {name: {"value": value} for name, value in examples.items() if value is not None}
    return {"schema": schema, **({"examples": held} if held else {})}


def _bodies(signature: Signature) -> dict[str, JsonObject]:
    """The schemas of what may be sent to `/invocations`, for the forms that the signature has."""
    held = forms(signature)
    bodies = {
        "DataframeSplit": _body("dataframe_split", held.split, f"MLflow 2 and 3: {_SPLIT}"),
        "DataframeRecords": _body("dataframe_records", held.records, f"MLflow 2 and 3: {_RECORDS}"),
        "Instances": _body("instances", held.inputs, "Records, or plain values where the model takes one column."),
        "Inputs": _body("inputs", held.inputs, "As `instances`; or columns of values, all of one length."),
        "Document": document_schema(signature),
        "Split": held.split and {"description": f"MLflow 1: {_SPLIT}", **held.split},
        "Records": held.records and {"description": f"MLflow 1: {_RECORDS}", **held.records},
        "Csv": _csv(signature),
    }
    return {name: schema for name, schema in bodies.items() if schema is not None}


_SPLIT = "pandas' split orient: names once, then the values of each row in their order."
_RECORDS = "a record a row; what one of several records lacks is null there."
_CSV_TEXT = (
    "RFC 4180 with a header, typed by the signature. An empty field is the empty string in a column of strings, and "
    "null in any other. Lists and objects are written as JSON."
)
_CELLS = {
    "string": '("([^"]|"")*"|[^",\\r\\n]+)',
    "long": "[+-]?[0-9]{1,18}",
    "integer": "[+-]?[0-9]{1,9}",
    **dict.fromkeys(("double", "float"), "[+-]?[0-9]{1,40}(\\.[0-9]{0,40})?"),
    "boolean": "([Tt]rue|[Ff]alse)",
}


def _csv(signature: Signature) -> JsonObject | None:
    """With a pattern for columns in the signature's order, where each of them is of a plain type."""
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
    """An object that holds `form`, perhaps params, and no key that makes it another body."""
    others = {name: False for name in (*FORMS, *sorted(KEYS)) if name != form}
    return schema and object_of({form: schema}, {"params": ref("Params"), **others}, description=text)


def _answer(outputs: Iterable[Field] | None) -> JsonObject:
    predictions = _predictions(outputs)
    return {
        "description": "The predictions: under their name, or bare for a request of MLflow 1.",
        "anyOf": [object_of({"predictions": predictions}), predictions],
    }


def _predictions(outputs: Iterable[Field] | None) -> JsonObject:
    """What the signature says of the outputs; NaN and infinity leave as null."""
    fields = list(outputs or ())
    if not fields or any(field.name is None or field.kind not in _OUTPUTS for field in fields):
        return {}
    members = {str(field.name): nullable(_OUTPUTS[field.kind]) for field in fields}
    record = {"type": "object", "properties": members}
    one = {"anyOf": [record, next(iter(members.values()))]} if len(fields) == 1 else record
    return {"anyOf": [array_of(one), {"type": "object"}]}
