"""JSON Schemas of the values that the server accepts, matching the casts of `core/casts.py` and `wire`.

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

NULL: JsonObject = {"type": "null"}
TEXT: JsonObject = {"type": "string"}
_LARGEST = 1.7976931348623157e308
_DIGITS = {2**31 - 1: "[0-9]{1,9}|1[0-9]{9}", 2**63 - 1: "[0-9]{1,18}|[1-8][0-9]{18}"}
_MONTH_DAY = "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|[12][0-9]))"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?"
_ZONE = "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"


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


def as_json(schema: JsonObject) -> JsonObject:
    """The content object of a JSON body."""
    return {"application/json": {"schema": schema}}


def whole_number(low: int, high: int) -> JsonObject:
    """An integer from `low` to `high`; also accepted as text."""
    text = {"type": "string", "pattern": f"^[+-]?({_DIGITS[high]})$"} if high in _DIGITS else None
    parts: list[JsonObject] = [{"type": "integer", "minimum": low, "maximum": high}, *([text] if text else [])]
    return {"anyOf": parts}


def _floating(largest: float, exact: int, digits: int, exponent: str) -> JsonObject:
    """A number up to `largest`; integers that it holds exactly, up to `exact`, which has more than `digits` digits."""
    decimal = rf"^[+-]?([0-9]{{1,{digits}}}(\.[0-9]{{0,40}})?|\.[0-9]{{1,40}})([eE](-[0-9]{{1,3}}|\+?{exponent}))?$"
    return {
        "description": "A number; also accepted as text. Larger integers are accepted if they are exact.",
        "anyOf": [*_numbers(largest, exact), {"type": "string", "pattern": decimal}],
    }


def _numbers(largest: float = _LARGEST, exact: int = 2**53) -> list[JsonObject]:
    fraction = {"type": "number", "minimum": -largest, "maximum": largest, "not": {"type": "integer"}}
    return [fraction, {"type": "integer", "minimum": -exact, "maximum": exact}]


TYPES: Mapping[str, JsonObject] = {
    "string": {"description": "Text.", "type": "string"},
    "integer": {"description": "A 32-bit integer; also accepted as text.", **whole_number(*INTEGERS["integer"])},
    "long": {"description": "A 64-bit integer; also accepted as text.", **whole_number(*INTEGERS["long"])},
    "float": _floating(3.4e38, 2**24, 7, "[12]?[0-9]"),
    "double": _floating(_LARGEST, 2**53, 15, "[0-9]{1,2}"),
    "boolean": {
        "description": "true or false; 1 and 0, and the words as text, are also accepted.",
        "anyOf": [
            {"type": "boolean"},
            {"type": "number", "enum": [0, 1]},
            {"type": "string", "pattern": "^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$"},
        ],
    },
    "datetime": {
        "description": "A date, or a date and time, in ISO 8601; converted to UTC if it has a time zone. A number is "
        "nanoseconds since 1970. Dates such as 2026/11/22 and 11/22/2026 are also accepted.",
        "anyOf": [
            {"type": "string", "pattern": f"^(1[7-9]|2[01])[0-9]{{2}}-{_MONTH_DAY}([T ]{_TIME}{_ZONE}?)?$"},
            {"type": "integer", "minimum": -(2**63) + 1, "maximum": 2**63 - 1},
        ],
    },
    "binary": {
        "description": "Bytes as base64.",
        "type": "string",
        "contentEncoding": "base64",
        "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    },
    "binary_ascii": {
        "description": "Bytes as ASCII text, as MLflow reads them in `inputs`, `instances` and `params`.",
        "type": "string",
        "pattern": "^[\\u0000-\\u007f]*$",
    },
}


def nullable(schema: JsonObject) -> JsonObject:
    """`schema`, or null."""
    return {"anyOf": [schema, NULL]} if schema else schema


def value_schema(spec: Mapping[str, object], binary: str = "binary") -> JsonObject:
    """The schema of a non-null value of a column, property or element; `spec` is its entry in the signature."""
    kind = str(spec.get("type"))
    if kind in TYPES:
        return ref(binary if kind == "binary" else kind)
    if kind == "array":
        return {"type": "array", "items": value_schema(mapping(spec.get("items")), binary)}
    if kind == "map":
        return {"type": "object", "additionalProperties": value_schema(mapping(spec.get("values")), binary)}
    if kind == "object":
        return _object(mapping(spec.get("properties")), binary)
    return {} if kind == "any" else {"not": NULL}


def takes_null(field: Field) -> bool:
    """Whether the column accepts null."""
    return field.kind in NULLABLE or (not field.required and field.kind not in INTEGERS and field.kind != "tensor")


def column_schema(field: Field, binary: str = "binary") -> JsonObject:
    """The schema of one row's value in a column of the signature."""
    if field.kind == "tensor":
        return tensor_row(field)
    value = value_schema(field.raw, binary)
    return nullable(value) if takes_null(field) else value


def tensor_row(field: Field) -> JsonObject:
    """The schema of one row of a tensor: nested lists of its shape without the first dimension."""
    schema = tensor_leaf(field)
    for size in reversed(shape_of(field)[1:]):
        schema = {"type": "array", "items": schema, **exactly(size)}
    return schema


def tensor_leaf(field: Field) -> JsonObject:
    """The schema of one element of a tensor."""
    dtype = dtype_of(field)
    if dtype == "bool":
        return ref("boolean")
    if dtype.startswith("float"):
        return nullable(ref("double"))
    if match := re.fullmatch(r"(u?)int(\d+)", dtype):
        bits = int(match[2])
        return whole_number(0, 2**bits - 1) if match[1] else whole_number(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return ref("string") if dtype.startswith(("str", "<U", "U")) else {}


def row_count(fields: Sequence[Field]) -> JsonObject:
    """The number of rows that a request must have, if a tensor has a fixed first dimension."""
    fixed = [shape_of(field)[0] for field in fields if field.kind == "tensor" and shape_of(field)[0] != -1]
    return exactly(fixed[0]) if fixed else {}


def param_schema(field: Field) -> JsonObject:
    """The schema of a param; stricter than a column, since numbers are not accepted as text."""
    strict: dict[str, JsonObject] = {
        "string": {"type": "string"},
        "boolean": {"type": "boolean"},
        "double": {"anyOf": _numbers()},
        "float": {"anyOf": _numbers()},
        **{kind: {"type": "integer", "minimum": low, "maximum": high} for kind, (low, high) in INTEGERS.items()},
    }
    one = nullable(strict.get(field.kind) or value_schema(field.raw, "binary_ascii"))
    schema: JsonObject = {"type": "array", "items": one} if field.raw.get("shape") else dict(one)
    return {**schema, "default": field.raw["default"]} if "default" in field.raw else schema


def _object(properties: Mapping[str, object], binary: str) -> JsonObject:
    specs = {str(name): mapping(spec) for name, spec in properties.items()}
    schemas = {name: value_schema(spec, binary) for name, spec in specs.items()}
    needed = {name: schema for name, schema in schemas.items() if specs[name].get("required", True)}
    optional = {name: nullable(schema) for name, schema in schemas.items() if name not in needed}
    return object_of(needed, optional, additionalProperties=False)


def exactly(size: int) -> JsonObject:
    """Constraints for a list of exactly `size` elements; none for -1."""
    return {} if size == -1 else {"minItems": size, "maxItems": size}


def mapping(value: object) -> Mapping[str, Any]:
    """`value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}
