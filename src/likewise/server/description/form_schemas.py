"""What each form of `POST /invocations` holds, as JSON Schema, for the model's own signature.

A body that a schema here calls valid is taken, but for what no schema can say: that rows have one width, columns one
length and an index as many labels as rows.  What is taken beyond it (columns in another order, columns that the model
does not know) is said in the descriptions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from likewise.core.casts import INTEGERS, NESTED, NULLABLE
from likewise.core.signature import Field, Signature
from likewise.server.description.schemas import (
    TYPES,
    Json,
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
from likewise.wire.tensor import shape_of

_PLAIN = frozenset({"string", "boolean", "integer", "long", "float", "double"})
_NOT_OBJECT: Json = {"not": {"type": "object"}}


def params_schema(signature: Signature) -> Json:
    """`params` of a request; anything where the model takes none."""
    if not signature.params:
        return {"description": "The model takes no params: whatever stands here is ignored."}
    return {
        "description": "Those that are left out have their defaults; those that the model does not know are ignored.",
        "type": ["object", "null"],
        "properties": {str(field.name): param_schema(field) for field in signature.params},
    }


@dataclass(frozen=True, slots=True)
class Forms:
    """The schema of what each form holds; None where the form has none that can be told."""

    split: Json | None
    records: Json | None
    inputs: Json
    document: Json | None = None


def forms(signature: Signature) -> Forms:
    """The forms of `POST /invocations` for the model's signature."""
    return replace(_tables(signature), document=_document(signature))


def _tables(signature: Signature) -> Forms:
    fields = signature.inputs
    if not fields:
        return _free()
    if signature.columns is not None:
        return _named(fields)
    return _unnamed_tensor(fields[0]) if signature.is_tensor else _unnamed_columns(fields)


def _document(signature: Signature) -> Json | None:
    """The body of a chat or completion model; None where the model has columns, and none of its keys is among them."""
    fields = signature.inputs or ()
    if fields and not any(field.name in KEYS for field in fields):
        return None
    typed = all(field.kind in _PLAIN for field in fields)
    columns = {str(field.name): column_schema(field) for field in fields if typed}
    params = {str(field.name): param_schema(field) for field in signature.params or ()}
    return {
        "description": "MLflow 3, for language models: the body is the model's input itself, and is answered bare.",
        "type": "object",
        "properties": {**columns, **params},
        "required": [field.name for field in fields if field.required],
        "anyOf": [{"required": [name]} for name in sorted(KEYS)],
    }


def split(columns: Json | None, row: Json, rows: Json) -> Json:
    """pandas' split orient; `columns` may be left out where the model's columns have no names."""
    return {
        "type": "object",
        "properties": {
            "columns": columns or {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
            "index": {"type": ["array", "null"], "description": "One label a row; it is not used."},
            "data": {"type": "array", "items": row, **rows},
        },
        "required": ["columns", "data"] if columns else ["data"],
        "additionalProperties": False,
    }


def records(fields: Sequence[Field], binary: str = "binary") -> Json:
    """A list of records: a column must be in one of them, and where it takes no null in each."""
    nulls = [f.name for f in fields if f.required and (f.kind in NULLABLE)]
    each = [f.name for f in fields if f.required and f.name not in nulls]
    together = [f.name for f in fields if not f.required and f.kind in INTEGERS]
    rules: list[Json] = [{"contains": {"type": "object", "required": [name]}} for name in nulls]
    rules += [
        {"anyOf": [{"items": {"required": [name]}}, {"items": {"not": {"required": [name]}}}]} for name in together
    ]
    record = {"type": "object", "properties": {str(f.name): column_schema(f, binary) for f in fields}}
    schema: Json = {"type": "array", "items": {**record, **({"required": each} if each else {})}}
    schema |= {"minItems": 1} if each else {}
    schema |= row_count(fields)
    return {**schema, **(rules[0] if len(rules) == 1 else {"allOf": rules} if rules else {})}


def _free() -> Forms:
    plain = {"type": ["string", "number", "boolean", "null"]}
    of_objects: Json = {"type": "array", "items": {"type": "object"}}
    listed: Json = {"type": "array", "items": _NOT_OBJECT}
    columns: Json = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    return Forms(
        split(columns, {"type": "array"}, {}), of_objects, {"anyOf": [of_objects, listed, {"type": "object"}, plain]}
    )


def _named(fields: Sequence[Field]) -> Forms:
    variants = [_named_split(fields)]
    if needed := [field for field in fields if field.required]:
        variants += [_named_split(needed)] if len(needed) < len(fields) else []
    ways = [records(fields, "binary_ascii"), _by_column(fields), *(_values(fields[0]) if len(fields) == 1 else [])]
    return Forms({"anyOf": variants} if len(variants) > 1 else variants[0], records(fields), {"anyOf": ways})


def _named_split(fields: Sequence[Field]) -> Json:
    names = [field.name for field in fields]
    cells = {str(field.name): column_schema(field) for field in fields}
    needed = [field.name for field in fields if not takes_null(field)]
    record: Json = {"type": "object", "properties": cells, **({"required": needed} if needed else {})}
    rows = [*_rows(fields, list(cells.values())), record]
    return split({"const": names}, {"anyOf": rows}, row_count(fields))


def _rows(fields: Sequence[Field], cells: Sequence[Json]) -> list[Json]:
    """What a row of values may be: a list; of one plain column the value itself too."""
    listed = {"type": "array", "prefixItems": list(cells), "minItems": len(cells), "maxItems": len(cells)}
    return [listed, cells[0]] if len(fields) == 1 and fields[0].kind in TYPES else [listed]


def _by_column(fields: Sequence[Field]) -> Json:
    """Columns of values, of one length; one row where a cell is itself a list or an object."""
    whole = any(field.kind in NESTED - {"any"} for field in fields)
    cells = {str(field.name): column_schema(field, "binary_ascii") for field in fields}
    required = {"required": [field.name for field in fields if field.required]}
    if whole:
        return {"type": "object", "properties": cells, **required}
    columns = {str(f.name): _column(f, cells[str(f.name)]) for f in fields}
    return {"type": "object", "properties": columns, **required, "additionalProperties": False}


def _column(field: Field, cell: Json) -> Json:
    values = {"type": "array", "items": cell, **row_count([field])}
    return values if field.kind == "tensor" or not cell else {"anyOf": [values, cell]}


def _values(field: Field) -> list[Json]:
    """What a list of plain values, the only column's, may be."""
    value = column_schema(field, "binary_ascii")
    if field.kind in ("object", "map"):
        return []
    if field.kind == "array" and mapping(field.raw.get("items")).get("type") in TYPES:
        return [{"type": "array", "items": value}, value]
    return [{"type": "array", "items": value or _NOT_OBJECT, **row_count([field])}]


def _unnamed_columns(fields: Sequence[Field]) -> Forms:
    cells = [column_schema(field, "binary_ascii") for field in fields]
    table = split(None, {"anyOf": _rows(fields, [column_schema(field) for field in fields])}, {})
    table["properties"]["columns"] |= exactly(len(fields))
    if len(fields) > 1:
        wide = {"type": "array", "prefixItems": cells, "minItems": len(cells)}  # values beyond them are dropped
        return Forms(table, None, {"type": "array", "items": wide})
    cell = cells[0]
    if fields[0].kind in NESTED:
        return Forms(table, None, {"type": "array", "items": cell})
    return Forms(table, None, {"anyOf": [{"type": "array", "items": {"anyOf": _rows(fields, cells)}}, cell]})


def _unnamed_tensor(field: Field) -> Forms:
    rows = row_count([field])
    row = tensor_row(field)
    inputs = {"type": "array", "items": row or _NOT_OBJECT, **rows}
    sizes = shape_of(field)[1:]
    width = math.prod(sizes)
    if width < 1 or -1 in sizes:
        return Forms(None, None, inputs)
    flat = {"type": "array", "items": tensor_leaf(field), **exactly(width)}
    table = split(None, flat, rows)
    table["properties"]["columns"] |= exactly(width)
    return Forms(table, None, inputs)
