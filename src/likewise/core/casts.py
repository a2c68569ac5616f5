"""Casts values to the signature's types, for requests and input files alike.

Casts are lossless or rejected: `5.0` is a long and `1.5` is not; `"2.5"` is a double.  MLflow truncates 1.5 to 1, wraps
numbers that overflow and accepts any object in a string column; such ambiguous values are rejected here.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from likewise.core.signature import Field

Cast = Callable[[object], object]

NULLABLE = frozenset({"string", "double", "float", "datetime", "any"})  # MLflow accepts null there even if required
NESTED = frozenset({"array", "object", "map", "any"})
INTEGERS = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
ABSENT = frozenset({"", "na", "n/a", "nan", "null", "none", "<na>"})  # missing values in a CSV's non-text columns
_TRUTH = {"true": True, "false": False}
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,4000}\s*", re.ASCII)  # int() also accepts 1_000 and non-ASCII digits; max 4300
_EPOCH = datetime(1970, 1, 1)  # MLflow's datetimes have no time zone
_DATES = ("%Y/%m/%d", "%Y/%m/%d %H:%M:%S", "%m/%d/%Y", "%m/%d/%Y %H:%M:%S", "%Y-%m", "%Y")


class Mismatch(ValueError):
    """A value that does not have the expected type; the message names what was expected."""


def column_cast(field: Field, *, binary: Cast) -> Cast:
    """The cast for a column of the signature; null is allowed where MLflow allows it. The cast raises Mismatch."""
    nullable = field.kind in NULLABLE or (not field.required and field.kind not in INTEGERS)
    return cast_for(field.raw, nullable=nullable, binary=binary)


def from_cell(text: str, field: Field) -> object:
    """Prepare a CSV field for the column's cast: text unchanged, None if missing, nested types parsed as JSON."""
    if field.kind == "string":
        return text
    if text.strip().lower() in ABSENT:
        return None
    if _is_json(field):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # the cast reports what it expected
    return text


def cast_for(spec: Mapping[str, object], *, nullable: bool, binary: Cast) -> Cast:
    """The cast for one column, property or element; `spec` is its entry in the signature.

    `binary` converts text to bytes: `from_base64`, or `from_ascii` as MLflow does for tensor inputs.
    The cast raises Mismatch.  Source: mlflow/types/schema.py, `ColSpec.to_dict`.
    """
    kind = str(spec.get("type"))
    nullable = nullable or kind == "any"
    scalars = {**_SCALARS, "binary": binary}
    cast = _NESTED[kind](spec, binary) if kind in _NESTED else scalars.get(kind, _any)

    def nullable_cast(value: object) -> object:
        if value is None:
            if nullable:
                return None
            raise Mismatch(f"a value of type {kind}")
        return cast(value)

    return nullable_cast


def integer_within(low: int, high: int) -> Cast:
    """The cast to an integer from `low` to `high`, both inclusive."""

    def cast(value: object) -> int:
        if isinstance(value, str):
            value = int(value) if _WHOLE.fullmatch(value) else to_double(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or not low <= value <= high:
            raise Mismatch(f"a whole number from {low} to {high}")
        return int(value)

    return cast


def to_whole(text: str) -> int:
    """Parse an integer written in ASCII digits; raises Mismatch."""
    if _WHOLE.fullmatch(text):
        return int(text)
    raise Mismatch("a whole number")


def to_double(value: object) -> float | None:
    """A float; NaN becomes None, which marks a missing value. Raises Mismatch."""
    try:
        if isinstance(value, (int, float)) or (isinstance(value, str) and value.isascii() and "_" not in value):
            number = float(value)
            return None if math.isnan(number) else number
    except (ValueError, OverflowError):
        pass
    raise Mismatch("a number")


def to_string(value: object) -> str:
    """`value` if it is a string; raises Mismatch otherwise."""
    if isinstance(value, str):
        return value
    raise Mismatch("a string")


def to_boolean(value: object) -> bool:
    """A bool from true/false, 1/0, or the strings "true"/"false" in any case; raises Mismatch."""
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _TRUTH:
        return _TRUTH[value.strip().lower()]
    raise Mismatch("true or false")


def to_datetime(value: object) -> datetime:
    """A naive datetime, converted to UTC if the text has a time zone; a number is nanoseconds since 1970, as in pandas.

    Raises Mismatch.
    """
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _EPOCH + timedelta(microseconds=value / 1000)
        if isinstance(value, str):
            return _parse_datetime(value.strip())
    except (ValueError, OverflowError):
        pass
    raise Mismatch("a date and time such as 2026-11-22T09:30:00")


def from_base64(value: object) -> bytes:
    """Decode base64, with line breaks allowed; raises Mismatch."""
    try:
        if isinstance(value, str):
            return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        pass
    raise Mismatch("bytes in base64")


def from_ascii(value: object) -> bytes:
    """The bytes of an ASCII string, as numpy converts text in a binary column; raises Mismatch."""
    if isinstance(value, str) and value.isascii():
        return value.encode("ascii")
    raise Mismatch("bytes as ASCII text")


def _parse_datetime(text: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        for form in _DATES:
            try:
                return datetime.strptime(text, form)
            except ValueError:
                continue
        raise
    return parsed if parsed.tzinfo is None else parsed.astimezone(UTC).replace(tzinfo=None)


def _is_json(field: Field) -> bool:
    spec = _mapping(field.raw.get("tensor-spec"))
    numbers = field.kind == "tensor" and not str(spec.get("dtype")).startswith(("str", "object", "U", "<U"))
    return numbers or field.kind in _NESTED


def _any(value: object) -> object:
    return value


def _array(spec: Mapping[str, object], binary: Cast) -> Cast:
    cast = cast_for(_mapping(spec.get("items")), nullable=False, binary=binary)

    def elements(value: object) -> object:
        if not isinstance(value, list):
            raise Mismatch("a list")
        return [_inside(f"element {i}", cast, element) for i, element in enumerate(value)]

    return elements


def _object(spec: Mapping[str, object], binary: Cast) -> Cast:
    properties = {str(name): _mapping(p) for name, p in _mapping(spec.get("properties")).items()}
    required = [name for name, p in properties.items() if p.get("required", True)]
    casts = {name: cast_for(p, nullable=name not in required, binary=binary) for name, p in properties.items()}

    def members(value: object) -> object:
        if not isinstance(value, dict):
            raise Mismatch("an object")
        if missing := [name for name in required if name not in value]:
            raise Mismatch(f"an object with the property {missing[0]!r}")
        if unknown := [name for name in value if name not in casts]:
            raise Mismatch(f"an object without the property {unknown[0]!r}")
        return {name: _inside(f"property {name!r}", casts[name], member) for name, member in value.items()}

    return members


def _map(spec: Mapping[str, object], binary: Cast) -> Cast:
    cast = cast_for(_mapping(spec.get("values")), nullable=False, binary=binary)

    def members(value: object) -> object:
        if not isinstance(value, dict):
            raise Mismatch("an object")
        return {key: _inside(f"key {key!r}", cast, member) for key, member in value.items()}

    return members


def _inside(where: str, cast: Cast, value: object) -> object:
    try:
        return cast(value)
    except Mismatch as error:
        raise Mismatch(f"{error} in {where}") from error


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


_SCALARS: dict[str, Cast] = {
    "string": to_string,
    "double": to_double,
    "float": to_double,
    "boolean": to_boolean,
    "datetime": to_datetime,
    **{kind: integer_within(*bounds) for kind, bounds in INTEGERS.items()},
}
_NESTED = {"array": _array, "object": _object, "map": _map}
