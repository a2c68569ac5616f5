"""JSON Schemas for each form of `POST /invocations`, derived from the model's own signature.

A body that matches its schema is accepted, except for rules that JSON Schema cannot express: rows have equal widths,
columns equal lengths, and an index has one label per row.  What is accepted beyond the schemas (columns in another
order, unknown columns) is documented in the descriptions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from likewise.core.casts import INTEGERS, NESTED, NULLABLE
from likewise.core.signature import Field, Signature
from likewise.core.tensors import shape_of
from likewise.server.description.schemas import (
    TEXT,
    TYPES,
    JsonObject,
    array_of,
    column_schema,
    exactly,
    mapping,
    param_schema,
    row_count,
    takes_null,
    tensor_leaf,
    tensor_row,
)
from likewise.wire.document import KEYS

_PLAIN = frozenset({"string", "boolean", "integer", "long", "float", "double"})
_NAMES = array_of(TEXT, uniqueItems=True)
_NOT_OBJECT: JsonObject = {"not": {"type": "object"}}


def params_schema(signature: Signature) -> JsonObject:
    """The schema of a request's `params`; anything is allowed if the model takes none."""
    if not signature.params:
        return {"description": "The model takes no params; any value here is ignored."}
    return {
        "description": "Omitted params have their defaults; unknown params are ignored.",
        "type": ["object", "null"],
        "properties": {str(field.name): param_schema(field) for field in signature.params},
    }


@dataclass(frozen=True, slots=True)
class Forms:
    """The schema of each form's content; None if the form does not apply to the signature."""

    split: JsonObject | None
    records: JsonObject | None
    inputs: JsonObject


def forms(signature: Signature) -> Forms:
    """The schemas of the forms of `POST /invocations` for the model's signature."""
    fields = signature.inputs
    if not fields:
        return _free()
    if signature.columns is not None:
        return _named(fields)
    return _unnamed_tensor(fields[0]) if signature.is_tensor else _unnamed_columns(fields)


def document_schema(signature: Signature) -> JsonObject | None:
    """The body for a chat or completion model; None if the model has columns and none of them is in KEYS."""
    fields = signature.inputs or ()
    if fields and not any(field.name in KEYS for field in fields):
        return None
    typed = all(field.kind in _PLAIN for field in fields)
    columns = {str(field.name): column_schema(field) for field in fields if typed}
    params = {str(field.name): param_schema(field) for field in signature.params or ()}
    return {
        "description": "MLflow 3, for language models: the body is the model's input; the response is not wrapped.",
        "type": "object",
        "properties": {**columns, **params},
        "required": [field.name for field in fields if field.required],
        "anyOf": [{"required": [name]} for name in sorted(KEYS)],
    }


def _split(columns: JsonObject | None, row: JsonObject, rows: JsonObject, width: int = -1) -> JsonObject:
    """pandas' split orient.  `columns` is None if the model's are unnamed: requests may omit them or use any names."""
    return {
        "type": "object",
        "properties": {
            "columns": columns or {**_NAMES, **exactly(width)},
            "index": {"type": ["array", "null"], "items": {}, "description": "One label per row; ignored."},
            "data": array_of(row, **rows),
        },
        "required": ["columns", "data"] if columns else ["data"],
        "additionalProperties": False,
    }


def _records(fields: Sequence[Field], binary: str = "binary") -> JsonObject:
    """A list of records: a required column must be in one record at least, or in all if it does not accept null."""
    nulls = [f.name for f in fields if f.required and (f.kind in NULLABLE)]
    each = [str(f.name) for f in fields if f.required and f.name not in nulls]
    together = [f.name for f in fields if not f.required and f.kind in INTEGERS]
    rules: list[JsonObject] = [{"contains": {"type": "object", "required": [name]}} for name in nulls]
    rules += [
        {"anyOf": [{"items": {"required": [name]}}, {"items": {"not": {"required": [name]}}}]} for name in together
    ]
    size = {**({"minItems": 1} if each else {}), **row_count(fields)}
    rule = rules[0] if len(rules) == 1 else {"allOf": rules} if rules else {}
    return array_of(_record(_cells(fields, binary), each), **size, **rule)


def _cells(fields: Sequence[Field], binary: str = "binary") -> dict[str, JsonObject]:
    return {str(field.name): column_schema(field, binary) for field in fields}


def _record(cells: JsonObject, needed: list[str]) -> JsonObject:
    return {"type": "object", "properties": cells, **({"required": needed} if needed else {})}


def _free() -> Forms:
    """For a model without a signature."""
    plain = {"type": ["string", "number", "boolean", "null"]}
    of_objects = array_of({"type": "object"})
    anything = {"anyOf": [of_objects, array_of(_NOT_OBJECT), {"type": "object"}, plain]}
    return Forms(_split(_NAMES, array_of({}), {}), of_objects, anything)


def _named(fields: Sequence[Field]) -> Forms:
    """For columns with names."""
    variants = [_named_split(fields)]
    if needed := [field for field in fields if field.required]:
        variants += [_named_split(needed)] if len(needed) < len(fields) else []
    inputs = [_records(fields, "binary_ascii"), _by_column(fields), *(_values(fields[0]) if len(fields) == 1 else [])]
    return Forms({"anyOf": variants} if len(variants) > 1 else variants[0], _records(fields), {"anyOf": inputs})


def _named_split(fields: Sequence[Field]) -> JsonObject:
    cells = _cells(fields)
    record = _record(cells, [str(field.name) for field in fields if not takes_null(field)])
    columns = {"type": "array", "prefixItems": [{"const": name} for name in cells], **exactly(len(cells))}
    return _split(columns, {"anyOf": [*_rows(fields, list(cells.values())), record]}, row_count(fields))


def _rows(fields: Sequence[Field], cells: Sequence[JsonObject]) -> list[JsonObject]:
    """The schemas of a row: a list, or the bare value if there is a single plain column."""
    listed = {"type": "array", "prefixItems": list(cells), **exactly(len(cells))}
    return [listed, cells[0]] if len(fields) == 1 and fields[0].kind in TYPES else [listed]


def _by_column(fields: Sequence[Field]) -> JsonObject:
    """Columns of values of equal length, or one row if a cell is itself a list or an object."""
    cells = _cells(fields, "binary_ascii")
    required = [field.name for field in fields if field.required]
    if any(field.kind in NESTED - {"any"} for field in fields):
        return {"type": "object", "properties": cells, "required": required}
    columns = {name: _column(field, cell) for field, (name, cell) in zip(fields, cells.items(), strict=True)}
    return {"type": "object", "properties": columns, "required": required, "additionalProperties": False}


def _column(field: Field, cell: JsonObject) -> JsonObject:
    values = array_of(cell, **row_count([field]))
    return values if field.kind == "tensor" or not cell else {"anyOf": [values, cell]}


def _values(field: Field) -> list[JsonObject]:
    """The schemas of a list of plain values for the only column."""
    value = column_schema(field, "binary_ascii")
    if field.kind in ("object", "map"):
        return []
    if field.kind == "array" and mapping(field.raw.get("items")).get("type") in TYPES:
        return [array_of(value), value]
    return [array_of(value or _NOT_OBJECT, **row_count([field]))]


def _unnamed_columns(fields: Sequence[Field]) -> Forms:
    """For columns without names."""
    cells = [column_schema(field, "binary_ascii") for field in fields]
    rows = _rows(fields, [column_schema(field) for field in fields])
    table = _split(None, {"anyOf": rows}, {}, len(fields))
    if len(fields) > 1:  # values beyond them are dropped
        return Forms(table, None, array_of({"type": "array", "prefixItems": cells, "minItems": len(cells)}))
    if fields[0].kind in NESTED:
        return Forms(table, None, array_of(cells[0]))
    return Forms(table, None, {"anyOf": [array_of({"anyOf": _rows(fields, cells)}), cells[0]]})


def _unnamed_tensor(field: Field) -> Forms:
    """For a single tensor without a name."""
    rows = row_count([field])
    inputs = array_of(tensor_row(field) or _NOT_OBJECT, **rows)
    sizes = shape_of(field)[1:]
    width = math.prod(sizes)
    if width < 1 or -1 in sizes:
        return Forms(None, None, inputs)
    return Forms(_split(None, array_of(tensor_leaf(field), **exactly(width)), rows, width), None, inputs)
