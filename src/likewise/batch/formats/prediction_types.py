"""Arrow types of predictions that the model's signature does not declare: inferred from all predictions of a job.

An inferred type is a `Kind`, a JSON value that grows with every prediction, so that the journal of a job can store it:
`"null"`, `"boolean"`, `"integer"` (exact as a double), `"long"` (not exact as a double), `"double"`, `"string"`,
`"binary"`, `"date"`, `"datetime"` (without a time zone), `"instant"` (with one), `[KIND]` for lists, `{NAME: KIND}` for
records, and `"mixed"` for predictions of different types, which become text.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from typing import Any

from likewise.batch.values import as_cell
from likewise.core.arrow_types import SCALARS, list_of
from likewise.core.casts import EXACT

Kind = str | list[Any] | dict[str, Any]
Convert = Callable[[object], object]

LONGEST = 1 << 63
MEMBERS = 1000  # names in one record; more are data rather than names, and become text


def converter(pa: Any, kind: Any) -> Convert:
    """A function that gives a value the form that Arrow takes for the type `kind`.

    It raises TypeError or OverflowError for a value that the type would change. Arrow would cut 4.75 to 4.
    """
    convert = _converter(pa, kind)
    return lambda value: None if value is None else convert(value)


def kind_of(value: object) -> Kind:
    """The kind of one prediction; TypeError if it is not a plain value."""
    if value is None:
        return "null"
    if isinstance(value, (list, tuple)):
        return _list_kind(value)
    if isinstance(value, Mapping):
        members = {str(name): kind_of(member) for name, member in value.items()}
        return "mixed" if "mixed" in members.values() or len(members) > MEMBERS else members
    if isinstance(value, int) and not isinstance(value, bool):
        return "integer" if abs(value) <= EXACT else "long" if -LONGEST <= value < LONGEST else "mixed"
    if isinstance(value, datetime):
        return "datetime" if value.tzinfo is None else "instant"
    for of, kind in _KINDS.items():
        if isinstance(value, of):
            return kind
    raise TypeError(f"{type(value).__name__} has no JSON form")


def merged(first: Kind, second: Kind) -> Kind:
    """The kind that represents values of both kinds exactly."""
    if first == second or second == "null":
        return first
    if first == "null":
        return second
    if isinstance(first, list) and isinstance(second, list):
        inner = merged(first[0], second[0])
        return "mixed" if inner == "mixed" else [inner]
    if isinstance(first, dict) and isinstance(second, dict):
        names = [*first, *(name for name in second if name not in first)]
        members = {name: merged(first.get(name, "null"), second.get(name, "null")) for name in names}
        return "mixed" if "mixed" in members.values() or len(members) > MEMBERS else members
    return _NUMBERS.get(frozenset((str(first), str(second))), "mixed")


def all_merged(kinds: Iterable[Kind]) -> Kind:
    """The kind that represents values of all these kinds."""
    total: Kind = "null"
    for kind in kinds:
        total = merged(total, kind)
    return total


def inferred_type(pa: Any, kind: Kind) -> Any:
    """The Arrow type of a kind; a string for predictions that are all null, and for mixed ones."""
    return pa.string() if _has_empty_record(kind) else _arrow(pa, kind)


def inferred_array(pa: Any, kind: Kind, values: Sequence[object]) -> Any:
    """The values as an array of the type `inferred_type(pa, kind)`, which represents them exactly."""
    if kind == "mixed" or _has_empty_record(kind):
        values = [None if value is None else as_cell(value) for value in values]
    return pa.array(values, inferred_type(pa, kind))


def _converter(pa: Any, kind: Any) -> Convert:
    types = pa.types
    if types.is_struct(kind):
        return partial(_record, {field.name: converter(pa, field.type) for field in kind})
    if types.is_map(kind):
        return partial(_entries, converter(pa, kind.item_type))
    if types.is_list(kind):
        return partial(_elements, converter(pa, kind.value_type), float if types.is_float64(kind.value_type) else None)
    if types.is_string(kind):
        return as_cell
    if types.is_floating(kind):
        return partial(_float, single=types.is_float32(kind))
    return partial(_instance, next(of for is_kind, of in _PYTHON.items() if getattr(types, is_kind)(kind)))


def _record(members: Mapping[str, Convert], value: object) -> object:
    if not isinstance(value, Mapping) or not value.keys() <= members.keys():
        raise TypeError(f"expected a record of {', '.join(members)}, got {str(value)[:100]}")
    return {name: members[name](member) for name, member in value.items()}


def _entries(convert: Convert, value: object) -> object:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected a record, got {str(value)[:100]}")
    return [(name, convert(member)) for name, member in value.items()]


def _elements(convert: Convert, exact: type | None, value: object) -> object:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"expected a list, got {str(value)[:100]}")
    return value if set(map(type, value)) == {exact} else [convert(element) for element in value]


def _float(value: object, *, single: bool) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and float(value) == value:
        value = float(value)
    if single and isinstance(value, float):
        struct.pack("<f", value)  # raises OverflowError for a value that Arrow would write as infinity
    return _instance(float, value)


def _instance(of: type, value: object) -> object:
    if not isinstance(value, of) or (isinstance(value, bool) and of is not bool):
        raise TypeError(f"expected a {of.__name__}, got {str(value)[:100]} ({type(value).__name__})")
    return value


def _list_kind(values: Sequence[object]) -> Kind:
    inner = "double" if set(map(type, values)) == {float} else all_merged(map(kind_of, values))  # arrays are long
    return "mixed" if inner == "mixed" else [inner]


def _arrow(pa: Any, kind: Kind) -> Any:
    if isinstance(kind, list):
        return list_of(pa, _arrow(pa, kind[0]))
    if isinstance(kind, dict):
        return pa.struct([(name, _arrow(pa, member)) for name, member in kind.items()])
    return pa.timestamp("us", "UTC") if kind == "instant" else pa.type_for_alias(_ARROW[kind])


def _has_empty_record(kind: Kind) -> bool:
    """Whether records without names, which Parquet cannot store, are part of the kind."""
    if isinstance(kind, list):
        return _has_empty_record(kind[0])
    return isinstance(kind, dict) and (not kind or any(map(_has_empty_record, kind.values())))


_KINDS: dict[type, str] = {bool: "boolean", float: "double", str: "string", bytes: "binary", date: "date"}
_NUMBERS = {frozenset(("integer", "long")): "long", frozenset(("integer", "double")): "double"}
_ARROW = {**SCALARS, "null": "string", "mixed": "string", "integer": "int64", "date": "date32"}
# pyarrow's predicates of types: the Python type that they represent exactly
_PYTHON: dict[str, type] = {
    "is_boolean": bool,
    "is_integer": int,
    "is_binary": bytes,
    "is_timestamp": date,
}
