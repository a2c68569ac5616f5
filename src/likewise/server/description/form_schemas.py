"""JSON Schemas for each form of `POST /invocations`, derived from the model's own signature.

A body that matches its schema is accepted, except for rules that JSON Schema cannot express: rows have equal widths,
columns equal lengths, and an index has one label per row.  What is accepted beyond the schemas (columns in another
order, unknown columns, a missing one whose values may be null) is documented in the descriptions.  Each part has a name
and few alternatives, because generated clients make a class of each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from likewise.core.casts import NESTED
from likewise.core.signature import Field, Signature
from likewise.core.tensors import shape_of
from likewise.server.description.schemas import (
    JsonObject,
    array_of,
    column_schema,
    exactly,
    nullable,
    object_of,
    param_schema,
    ref,
    row_count,
    tensor_leaf,
    tensor_row,
)
from likewise.wire.document import KEYS
from likewise.wire.mlflow import FORMS

_TEXT: JsonObject = {"type": "string"}
_SCALAR: JsonObject = {"type": ["string", "number", "boolean", "null"]}
_BARE = re.compile(r"[^\",\r\n]+")  # an unquoted CSV field
_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}/]")  # characters to escape in a pattern
_OUTPUTS: dict[str, JsonObject] = {
    "string": _TEXT,
    "boolean": {"type": ["boolean", "integer"]},
    **{kind: {"type": "integer"} for kind in ("integer", "long")},
    **{kind: {"type": "number"} for kind in ("float", "double")},
}
_CELLS = {
    "string": '("([^"]|"")*"|[^",\\r\\n]+)',
    "long": "[+-]?[0-9]{1,18}",
    "integer": "[+-]?[0-9]{1,9}",
    "double": "[+-]?[0-9]{1,15}(\\.[0-9]{0,40})?",
    "float": "[+-]?[0-9]{1,7}(\\.[0-9]{0,40})?",
    "boolean": "([Tt]rue|[Ff]alse)",
}
_SPLIT = (
    "pandas' split orient: the column names once, then each row's values in that order. Rows may also be objects. "
    "Optional columns may be omitted."
)
_ROW = (
    "One row. A key whose value may be null may also be missing from some rows. An optional integer is in all rows or "
    "in none."
)
_CSV = (
    "RFC 4180 with a header (`text/csv; header=absent`: without one), typed by the signature. An empty field is the "
    "empty string in a column of strings, and null in any other. Lists and objects are written as JSON."
)


def request_schemas(signature: Signature) -> dict[str, JsonObject]:
    """The schemas of the bodies of `POST /invocations` that apply to the signature, and of their parts, by name."""
    row, split, params = row_schema(signature), _split(signature), _params(signature.params)
    extra = {"params": ref("Params")} if params else {}
    records = row and _rows(ref("Row"), signature)
    bodies = {
        "DataframeSplit": split and _body("dataframe_split", ref("Split"), extra),
        "DataframeRecords": records and _body("dataframe_records", records, extra),
        "Instances": _body("instances", ref("Values"), extra),
        "Inputs": _body("inputs", ref("Values"), extra),
        "Document": document_schema(signature),
    }
    forms = [ref(name) for name, schema in bodies.items() if schema] + [ref("Split")] * bool(split)
    parts = {"Row": row, "Split": split, "Params": params, "Csv": _csv(signature), **_values(signature)}
    named = {name: schema for name, schema in {**bodies, **parts}.items() if schema}
    return {"InvocationRequest": {"anyOf": [*forms, *([records] if records else [])]}, **named}


def rows_schema(signature: Signature) -> JsonObject:
    """The schema of a list of rows: records, or the values of `inputs` if the columns have no names."""
    row = row_schema(signature)
    return _rows(row, signature) if row else _unnamed_values(signature)


def row_schema(signature: Signature, *, ascii_bytes: bool = False) -> JsonObject | None:
    """The schema of one record; None if the columns have no names."""
    fields = signature.inputs or ()
    if not fields:
        return {"type": "object"}
    if signature.columns is None:
        return None
    cells = {str(field.name): column_schema(field, ascii_bytes=ascii_bytes) for field in fields}
    needed = {str(field.name): cells.pop(str(field.name)) for field in fields if field.required}
    return object_of(needed, cells, description=_ROW)


def response_schemas(outputs: Iterable[Field] | None) -> dict[str, JsonObject]:
    """The schemas of the response of `POST /invocations`; NaN and infinity are returned as null."""
    fields = list(outputs or ())
    text = "The predictions under the key `predictions`, or bare for MLflow 1 requests."
    if not fields or any(field.name is None or field.kind not in _OUTPUTS for field in fields):
        return {"InvocationResponse": {"description": text}}
    members = {str(field.name): nullable(_OUTPUTS[field.kind]) for field in fields}
    bare = next(iter(members.values()))
    rows = array_of({"anyOf": [ref("Prediction"), bare]} if len(fields) == 1 else ref("Prediction"))
    alternatives = [rows, ref("OtherPrediction")]
    return {
        "InvocationResponse": {"description": text, "anyOf": [ref("Predictions"), *alternatives]},
        "Predictions": object_of({"predictions": {"anyOf": alternatives}}),
        "Prediction": {"type": "object", "properties": members, "description": "The prediction for one row."},
        "OtherPrediction": {"type": "object", "description": "One object for all rows, if the model returns that."},
    }


def document_schema(signature: Signature) -> JsonObject | None:
    """The body for a chat or completion model; None if the model has columns and none of them is in KEYS."""
    fields = signature.inputs or ()
    if fields and not any(field.name in KEYS for field in fields):
        return None
    typed = all(field.kind not in NESTED for field in fields)
    columns = {str(field.name): column_schema(field) if typed else {} for field in fields}
    needed = {str(field.name): columns.pop(str(field.name)) for field in fields if field.required}
    params = {str(field.name): param_schema(field) for field in signature.params or ()}
    text = "MLflow 3, for language models: the body is the model's input; the response is not wrapped."
    rule = {} if KEYS & set(needed) else {"anyOf": [{"required": [name]} for name in sorted(KEYS)]}
    return object_of(needed, {**columns, **params}, description=text, **rule, **_without(FORMS))


def _params(fields: Sequence[Field] | None) -> JsonObject | None:
    text = "Omitted params have their defaults; unknown params are ignored."
    return (
        object_of({}, {str(field.name): param_schema(field) for field in fields}, description=text) if fields else None
    )


def _body(form: str, schema: JsonObject, extra: JsonObject) -> JsonObject:
    """An object with the key `form`, the optional keys `extra`, and no key of another form."""
    others = sorted({*FORMS, *KEYS} - {form})
    return object_of({form: schema}, extra, description="MLflow 2 and 3.", **_without(others))


def _without(names: Iterable[str]) -> JsonObject:
    return {"propertyNames": {"not": {"enum": list(names)}}}


def _rows(row: JsonObject, signature: Signature) -> JsonObject:
    """A list of records: one at least if a column is required."""
    fields = signature.inputs or ()
    return array_of(row, **{"minItems": min(1, sum(field.required for field in fields)), **row_count(fields)})


def _split(signature: Signature) -> JsonObject | None:
    """pandas' split orient; None for a tensor of variable width.  The names may be omitted if the model has none."""
    fields = signature.inputs or ()
    names: JsonObject = array_of(_TEXT, uniqueItems=True)
    if not fields:
        return _table(names, array_of({}), named=True)
    if signature.columns is not None:
        cells = [column_schema(field) for field in fields]
        names = {"type": "array", "prefixItems": [{"const": name} for name in signature.columns], **exactly(len(cells))}
        return _table(names, _listed(cells), row_count(fields), named=True)
    if not signature.is_tensor:
        return _table({**names, **exactly(len(fields))}, _listed([column_schema(field) for field in fields]))
    sizes = shape_of(fields[0])[1:]
    width = math.prod(sizes)
    if width < 1 or -1 in sizes:
        return None
    row = array_of(tensor_leaf(fields[0]), **exactly(width))
    return _table({**names, **exactly(width)}, row, row_count(fields))


def _table(columns: JsonObject, row: JsonObject, rows: JsonObject | None = None, *, named: bool = False) -> JsonObject:
    data = array_of(row, **(rows or {}))
    index = {"type": ["array", "null"], "items": {}, "description": "One label per row; ignored."}
    head = {"columns": columns}
    needed, optional = ({**head, "data": data}, {}) if named else ({"data": data}, head)
    return object_of(needed, {**optional, "index": index}, description=_SPLIT, additionalProperties=False)


def _listed(cells: Sequence[JsonObject]) -> JsonObject:
    """A row as a list."""
    return {"type": "array", "prefixItems": list(cells), "items": {}, **exactly(len(cells))}


def _values(signature: Signature) -> dict[str, JsonObject]:
    """The schema of `inputs` and `instances`, and those of its parts."""
    fields = signature.inputs or ()
    if not fields:
        return {"Values": {"anyOf": [array_of(ref("Row")), array_of(_SCALAR), ref("Row")]}}
    if signature.columns is None:
        return {"Values": _unnamed_values(signature)}
    row, record = row_schema(signature, ascii_bytes=True), "Row"
    parts: dict[str, JsonObject] = {}
    if row != row_schema(signature):
        record, parts = "AsciiRow", {"AsciiRow": row or {}}
    alternatives = [_rows(ref(record), signature)]
    if any(field.kind in NESTED - {"any"} for field in fields):
        alternatives.append(ref(record))  # columns of lists would be ambiguous
    else:
        cells = {str(f.name): array_of(column_schema(f, ascii_bytes=True), **row_count([f])) for f in fields}
        needed = {str(field.name): cells.pop(str(field.name)) for field in fields if field.required}
        parts["Columns"] = object_of(needed, cells, additionalProperties=False, description="Columns of equal length.")
        alternatives.append(ref("Columns"))
    if len(fields) == 1 and fields[0].kind not in ("object", "map"):
        alternatives.append(array_of(column_schema(fields[0], ascii_bytes=True) or _SCALAR, **row_count(fields)))
    return {
        "Values": {"anyOf": alternatives, "description": "Rows, columns, or the values of a single column."},
        **parts,
    }


def _unnamed_values(signature: Signature) -> JsonObject:
    fields = signature.inputs or ()
    if signature.is_tensor:
        return array_of(tensor_row(fields[0]) or _SCALAR, **row_count(fields))
    cells = [column_schema(field, ascii_bytes=True) for field in fields]
    return array_of(cells[0] if len(fields) == 1 else _listed(cells))


def _csv(signature: Signature) -> JsonObject | None:
    """The schema of a CSV body; it has a pattern if all columns have plain types."""
    if signature.columns is None:
        return None
    schema: JsonObject = {"type": "string", "description": _CSV}
    fields = signature.inputs or ()
    names = [str(field.name) for field in fields]
    if any(field.kind not in _CELLS for field in fields) or not all(map(_BARE.fullmatch, names)):
        return schema
    head = ",".join(_SPECIAL.sub(r"\\\g<0>", name) for name in names)
    line = ",".join(_CELLS[field.kind] for field in fields)
    return {**schema, "pattern": f"^{head}(\\r?\\n{line})*(\\r?\\n)?$"}
