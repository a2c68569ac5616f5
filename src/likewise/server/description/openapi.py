"""The API described: OpenAPI 3.1, typed by the model's own signature.

Source: OpenAPI Specification 3.1; Open Inference Protocol v2 (`server/openapi_v2.py` has its routes).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from likewise.core.signature import Field
from likewise.server.description.examples import Example, example_of
from likewise.server.description.form_schemas import Forms, forms, params_schema
from likewise.server.description.openapi_v2 import v2_paths, v2_schemas
from likewise.server.description.responses import Answers, error_schema
from likewise.server.description.schemas import TYPES, Json, nullable, ref
from likewise.server.model import ServedModel, mlflow_version
from likewise.wire.content import PARQUET
from likewise.wire.document import KEYS
from likewise.wire.mlflow import FORMS

_COMPONENT = re.compile(r'"#/components/schemas/([^"]+)"')
_METRICS: Json = {"text/plain": {}, "application/openmetrics-text": {}}
_BARE = re.compile(r"[^\",\r\n]+")  # a CSV's field without quotes
_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}/]")  # in a pattern
_OUTPUTS: dict[str, Json] = {
    "string": {"type": "string"},
    "boolean": {"type": ["boolean", "integer"]},
    **{kind: {"type": "integer"} for kind in ("integer", "long")},
    **{kind: {"type": "number"} for kind in ("float", "double")},
}


def describe(model: ServedModel, *, url: str, auth: bool, body_limit: int) -> Json:
    """The OpenAPI document of the service at `url`, as plain JSON values.

    auth: whether a token is asked for; body_limit: bytes of a request's body.
    """
    answers = Answers(auth=auth)
    example = example_of(model)
    document: Json = {
        "openapi": "3.1.0",
        "info": _info(model, body_limit, auth=auth),
        "servers": [{"url": url.rstrip("/") or "/"}],
        "tags": [
            {"name": "predictions", "description": "MLflow's scoring protocol."},
            {"name": "health", "description": "For load balancers and people."},
            {"name": "v2", "description": "Open Inference Protocol v2."},
            {"name": "pages", "description": "What describes the service."},
        ],
        "paths": {
            "/invocations": {"post": _invocations(model, example, answers)},
            **_health_paths(answers),
            **v2_paths(model, example, answers),
            **_page_paths(answers),
        },
        "components": {"responses": answers.components(), "headers": answers.headers(model), "schemas": {}},
    }
    if auth:
        document["security"] = [{"bearer": []}, {"basic": []}]
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "basic": {"type": "http", "scheme": "basic", "description": "The token is the password; any user name."},
        }
    document["components"]["schemas"] = _used(document, _schemas(model))
    return document


def _info(model: ServedModel, body_limit: int, *, auth: bool) -> Json:
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


def _invocations(model: ServedModel, example: Example | None, answers: Answers) -> Json:
    return {
        "tags": ["predictions"],
        "operationId": "invocations",
        "summary": "Predictions for rows.",
        "description": (
            'Answered in the form of the request: `{"predictions": …}` for MLflow 2 and 3, the bare predictions for '
            "the forms of MLflow 1. Columns may come in any order; those that the model does not know are dropped. A "
            "missing Content-Type is read as JSON. A row that the model refuses makes the request a 422 that names it."
        ),
        "parameters": answers.parameters(),
        "requestBody": {"required": True, "content": _contents(model, forms(model.signature), example)},
        "responses": {
            "200": answers.ok("The predictions, a row each.", {"application/json": {"schema": ref("Answer")}}),
            **answers.errors("400", "405", "408", "413", "415", "422", "500", "503", "504"),
        },
    }


def _contents(model: ServedModel, held: Forms, example: Example | None) -> Json:
    bodies = [ref(name) for name in _body_names(held)]
    contents: Json = {"application/json": {"schema": {"anyOf": bodies}, **_examples(_json_examples(example))}}
    if held.split is not None:
        split = example.split if example else None
        contents["application/json; format=pandas-split"] = {"schema": ref("Split"), **_examples({"split": split})}
    if held.records is not None:
        rows = example.records if example else None
        contents["application/json; format=pandas-records"] = {"schema": ref("Records"), **_examples({"records": rows})}
    if model.signature.columns is not None:
        contents["text/csv"] = {"schema": ref("Csv"), **_examples({"csv": example.csv if example else None})}
    if find_spec("pyarrow") is not None:
        contents[PARQUET] = {"schema": {"description": "A Parquet file, with the columns of the model."}}
    return contents


def _json_examples(example: Example | None) -> dict[str, Any]:
    if example is None:
        return {}
    return {**example.bodies(), "split (MLflow 1)": example.split, "records (MLflow 1)": example.records}


def _examples(values: dict[str, Any]) -> Json:
    held = {name: {"value": value} for name, value in values.items() if value is not None}
    return {"examples": held} if held else {}


def _body_names(held: Forms) -> list[str]:
    table = ["DataframeSplit", "Split"] if held.split is not None else []
    rows = ["DataframeRecords", "Records"] if held.records is not None else []
    document = ["Document"] if held.document is not None else []
    return [*table[:1], *rows[:1], "Instances", "Inputs", *document, *table[1:], *rows[1:]]


def _schemas(model: ServedModel) -> dict[str, Json]:
    held = forms(model.signature)
    params = params_schema(model.signature)
    schemas = {
        **TYPES,
        "Error": error_schema(),
        "Answer": _answer_schema(model),
        "Params": params,
        "Instances": _body("instances", held.inputs, "Records, or plain values where the model takes one column."),
        "Inputs": _body("inputs", held.inputs, "As `instances`; or columns of values, all of one length."),
        "Csv": {"type": "string", "description": _CSV_TEXT, **_csv_pattern(model)},
        **v2_schemas(model),
    }
    if held.split is not None:
        text = "pandas' split orient: names once, then the values of each row in their order."
        schemas["Split"] = {"description": f"MLflow 1: {text}", **held.split}
        schemas["DataframeSplit"] = _body("dataframe_split", held.split, f"MLflow 2 and 3: {text}")
    if held.records is not None:
        text = "a record a row; what one of several records lacks is null there."
        schemas["Records"] = {"description": f"MLflow 1: {text}", **held.records}
        schemas["DataframeRecords"] = _body("dataframe_records", held.records, f"MLflow 2 and 3: {text}")
    if held.document is not None:
        schemas["Document"] = held.document
    return schemas


_CSV_TEXT = (
    "RFC 4180 with a header, typed by the signature. An empty field is the empty string in a column of strings, and "
    "null in any other. Lists and objects are written as JSON."
)
_CELLS = {
    "string": '("([^"]|"")*"|[^",\\r\\n]+)',
    "long": "[+-]?[0-9]{1,18}",
    "integer": "[+-]?[0-9]{1,9}",
    "double": "[+-]?[0-9]{1,40}(\\.[0-9]{0,40})?",
    "float": "[+-]?[0-9]{1,40}(\\.[0-9]{0,40})?",
    "boolean": "([Tt]rue|[Ff]alse)",
}


def _csv_pattern(model: ServedModel) -> Json:
    """Of a CSV with the columns in the signature's order; nothing where one of them is of no plain type."""
    fields = model.signature.inputs or ()
    plain = [str(field.name) for field in fields]
    if any(field.kind not in _CELLS for field in fields) or not all(map(_BARE.fullmatch, plain)):
        return {}
    head = ",".join(_SPECIAL.sub(r"\\\g<0>", name) for name in plain)
    line = ",".join(_CELLS[field.kind] for field in fields)
    return {"pattern": f"^{head}(\\r?\\n{line})*(\\r?\\n)?$"}


def _body(form: str, schema: Json, text: str) -> Json:
    """An object that holds `form`, perhaps params, and no key that makes it another body."""
    others = {name: False for name in (*FORMS, *sorted(KEYS)) if name != form}
    return {
        "description": text,
        "type": "object",
        "properties": {form: schema, "params": ref("Params"), **others},
        "required": [form],
    }


def _answer_schema(model: ServedModel) -> Json:
    predictions = _predictions(model.signature.outputs)
    return {
        "description": "The predictions: under their name, or bare for a request of MLflow 1.",
        "anyOf": [
            {"type": "object", "properties": {"predictions": predictions}, "required": ["predictions"]},
            predictions,
        ],
    }


def _predictions(outputs: Iterable[Field] | None) -> Json:
    """What the signature says of the outputs; NaN and infinity leave as null."""
    fields = list(outputs or ())
    if not fields or any(field.name is None or field.kind not in _OUTPUTS for field in fields):
        return {}
    members = {str(field.name): nullable(_OUTPUTS[field.kind]) for field in fields}
    record = {"type": "object", "properties": members}
    one = {"anyOf": [record, next(iter(members.values()))]} if len(fields) == 1 else record
    return {"anyOf": [{"type": "array", "items": one}, {"type": "object"}]}


def _health_paths(answers: Answers) -> Json:
    def probe(name: str, summary: str, *, ready: bool = False) -> Json:
        failures = answers.errors("405", *(["503"] if ready else []), is_open=True)
        ok = answers.ok("Yes. The body is a line break.")
        return {"get": answers.read(name, "health", summary, ok, failures, is_open=True)}

    version = answers.ok("The version, bare, as MLflow's own server prints it.", {"application/json": {}})
    page = answers.ok("Prometheus' text format; OpenMetrics where Accept asks for it.", _METRICS)
    return {
        "/ping": probe("ping", "Whether the process lives."),
        "/health": probe("health", "As /ping."),
        "/ready": probe("ready", "Whether the model is warm and the server is not stopping.", ready=True),
        "/version": {"get": answers.read("version", "health", "MLflow's version.", version, answers.errors("405"))},
        "/metrics": {"get": answers.read("metrics", "health", "Metrics.", page, answers.errors("405"))},
    }


def _page_paths(answers: Answers) -> Json:
    html: Json = {"text/html": {"schema": {"type": "string"}}}
    described: Json = {"application/json": {"schema": {"type": "object"}}}
    pages = {
        "/": ("page", "The model, and a form that tries it.", html),
        "/docs": ("docs", "This description, to be read.", html),
        "/openapi.json": ("openapi", "This description.", described),
    }
    return {
        path: {"get": answers.read(name, "pages", text, answers.ok("The page.", content), answers.errors("405"))}
        for path, (name, text, content) in pages.items()
    }


def _used(document: Json, schemas: dict[str, Json]) -> dict[str, Json]:
    """Those schemas that the document refers to, also through others, in their order."""
    used: set[str] = set()
    found = set(_COMPONENT.findall(json.dumps(document)))
    while new := found - used:
        used |= new
        found = {name for one in new for name in _COMPONENT.findall(json.dumps(schemas[one]))}
    return {name: schema for name, schema in schemas.items() if name in used}
