"""JSON Schemas of the values of a signature's types, for columns, tensors and params.

A value that matches is accepted, except for integers above 2**53 where a float does not hold them exactly.  Each type
has one plain schema, because programs that generate clients make a class of each alternative; what is accepted beyond
it, such as numbers as text, is in its description.

Source: JSON Schema, draft 2020-12.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from likewise.core.casts import INTEGERS, NULLABLE
from likewise.core.signature import Field
from likewise.core.tensors import dtype_of, shape_of

JsonObject = dict[str, Any]

_MONTH_DAY = "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|[12][0-9]))"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?"
_ZONE = "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


def ref(name: str) -> JsonObject:
    """A reference to a schema of the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(needed: JsonObject, optional: JsonObject | None = None, **more: object) -> JsonObject:
    """An object with the required properties `needed` and the optional ones `optional`."""
    required = {"required": list(needed)} if needed else {}
    return {**more, "type": "object", "properties": {**needed, **(optional or {})}, **required}


def array_of(items: JsonObject, **more: object) -> JsonObject:
    """A list whose elements match `items`."""
    return {**more, "type": "array", "items": items}


def nullable(schema: JsonObject) -> JsonObject:
    """`schema`, or null."""
    kinds = schema.get("type", [])
    return {**schema, "type": [*([kinds] if isinstance(kinds, str) else kinds), "null"]} if schema else schema


def _integer(low: int, high: int) -> JsonObject:
    return {"type": "integer", "minimum": low, "maximum": high}


def _number(text: str = "; also accepted as text", **limits: float) -> JsonObject:
    description = f"A number{text}. Large integers are accepted if a float holds them exactly."
    return {"type": "number", **limits, "description": description}


_INTEGERS = {kind: _integer(*bounds) for kind, bounds in INTEGERS.items()}
_TYPES: Mapping[str, JsonObject] = {
    "string": {"type": "string"},
    "integer": {**_INTEGERS["integer"], "description": "A 32-bit integer; also accepted as text."},
    "long": {**_INTEGERS["long"], "description": "A 64-bit integer; also accepted as text."},
    "float": _number(minimum=-3.4e38, maximum=3.4e38),
    "double": _number(),
    "boolean": {"type": "boolean", "description": "1 and 0, and the words as text, are also accepted."},
    "datetime": {
        "type": "string",
        "pattern": f"^(1[7-9]|2[01])[0-9]{{2}}-{_MONTH_DAY}([T ]{_TIME}{_ZONE}?)?$",
        "description": "A date, or a date and time, in ISO 8601; converted to UTC if it has a time zone. Dates such as "
        "2026/11/22 and 11/22/2026, and integers, which are nanoseconds since 1970, are also accepted.",
    },
    "binary": {"type": "string", "contentEncoding": "base64", "pattern": _BASE64, "description": "Bytes as base64."},
}
_ASCII: JsonObject = {"type": "string", "pattern": "^[\\u0000-\\u007f]*$", "description": "Bytes as ASCII text."}
_STRICT: Mapping[str, JsonObject] = {  # params: numbers are not accepted as text
    "boolean": {"type": "boolean"},
    "float": _number(""),
    "double": _number(""),
    **_INTEGERS,
}


def value_schema(spec: Mapping[str, object], *, ascii_bytes: bool = False) -> JsonObject:
    """The schema of a non-null value of a column, property or element; `spec` is its entry in the signature.

    ascii_bytes: whether bytes are ASCII text, as MLflow reads them in `inputs`, `instances` and `params`.
    """
    kind = str(spec.get("type"))
    if kind == "binary" and ascii_bytes:
        return _ASCII
    if kind == "array":
        return array_of(value_schema(_mapping(spec.get("items")), ascii_bytes=ascii_bytes))
    if kind == "map":
        values = value_schema(_mapping(spec.get("values")), ascii_bytes=ascii_bytes)
        return {"type": "object", "additionalProperties": values}
    if kind == "object":
        return _object(_mapping(spec.get("properties")), ascii_bytes=ascii_bytes)
    return _TYPES.get(kind, {})


def takes_null(field: Field) -> bool:
    """Whether the column accepts null."""
    return field.kind in NULLABLE or (not field.required and field.kind not in INTEGERS and field.kind != "tensor")


def column_schema(field: Field, *, ascii_bytes: bool = False) -> JsonObject:
    """The schema of one row's value in a column of the signature."""
    if field.kind == "tensor":
        return tensor_row(field)
    value = value_schema(field.raw, ascii_bytes=ascii_bytes)
    return nullable(value) if takes_null(field) else value


def tensor_row(field: Field) -> JsonObject:
    """The schema of one row of a tensor: nested lists of its shape without the first dimension."""
    schema = tensor_leaf(field)
    for size in reversed(shape_of(field)[1:]):
        schema = array_of(schema, **exactly(size))
    return schema


def tensor_leaf(field: Field) -> JsonObject:
    """The schema of one element of a tensor."""
    dtype = dtype_of(field)
    if match := re.fullmatch(r"(u?)int(\d+)", dtype):
        bits = int(match[2])
        return _integer(0, 2**bits - 1) if match[1] else _integer(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if dtype.startswith("float"):
        return nullable(_TYPES["double"])
    if dtype.startswith(("str", "<U", "U")):
        return _TYPES["string"]
    return _TYPES["boolean"] if dtype == "bool" else {}


def row_count(fields: Sequence[Field]) -> JsonObject:
    """The number of rows that a request must have, if a tensor has a fixed first dimension."""
    fixed = [shape_of(field)[0] for field in fields if field.kind == "tensor" and shape_of(field)[0] != -1]
    return exactly(fixed[0]) if fixed else {}


def param_schema(field: Field) -> JsonObject:
    """The schema of a param; stricter than a column, since numbers are not accepted as text."""
    one = nullable(_STRICT.get(field.kind) or value_schema(field.raw, ascii_bytes=True))
    schema = array_of(one) if field.raw.get("shape") else one
    return {**schema, "default": field.raw["default"]} if "default" in field.raw else schema


def _object(properties: Mapping[str, object], *, ascii_bytes: bool) -> JsonObject:
    specs = {str(name): _mapping(spec) for name, spec in properties.items()}
    schemas = {name: value_schema(spec, ascii_bytes=ascii_bytes) for name, spec in specs.items()}
    needed = {name: schema for name, schema in schemas.items() if specs[name].get("required", True)}
    optional = {name: nullable(schema) for name, schema in schemas.items() if name not in needed}
    return object_of(needed, optional, additionalProperties=False)


def exactly(size: int) -> JsonObject:
    """Constraints for a list of exactly `size` elements; none for -1."""
    return {} if size == -1 else {"minItems": size, "maxItems": size}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
