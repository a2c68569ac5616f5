"""Values to the signature's types, the same for a request and for a file.

Lossless or refused: `5.0` is a long and `1.5` is not; `"2.5"` is a double.  MLflow cuts 1.5 to 1, wraps numbers that
overflow and lets any object pass a string column; those requests do not say what they mean, and are refused here.
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

NULLABLE = frozenset({"string", "double", "float", "datetime", "any"})  # MLflow takes null there even if required
NESTED = frozenset({"array", "object", "map", "any"})
INTEGERS = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
ABSENT = frozenset({"", "na", "n/a", "nan", "null", "none", "<na>"})  # in a CSV, of a column that holds no text
_TRUTH = {"true": True, "false": False}
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,4000}\s*", re.ASCII)  # int() also takes 1_000, other scripts' digits, never 4301
_EPOCH = datetime(1970, 1, 1)  # MLflow's datetimes have no zone
_DATES = ("%Y/%m/%d", "%Y/%m/%d %H:%M:%S", "%m/%d/%Y", "%m/%d/%Y %H:%M:%S", "%Y-%m", "%Y")


class Mismatch(ValueError):
    """A value that is not of its type; the text says what was expected."""


def column_cast(field: Field, *, binary: Cast) -> Cast:
    """The cast of a column of the signature, null where MLflow takes it; raises Mismatch."""
    nullable = field.kind in NULLABLE or (not field.required and field.kind not in INTEGERS)
    return cast_for(field.raw, nullable=nullable, binary=binary)


def from_cell(text: str, field: Field) -> object:
    """A CSV field, for the column's cast: text as it is, None where it is absent, what JSON nests as JSON reads it."""
    if field.kind == "string":
        return text
    if text.strip().lower() in ABSENT:
        return None
    if _is_json(field):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # the cast says what it expected
    return text


def cast_for(spec: Mapping[str, object], *, nullable: bool, binary: Cast) -> Cast:
    """The cast of one column, property or element; `spec` as the signature has it.

    `binary` is how text becomes bytes: `from_base64`, or `from_ascii` as MLflow reads it in tensors' forms.
    The cast raises Mismatch.  Source: mlflow/types/schema.py, `ColSpec.to_dict`.
    """
    kind = str(spec.get("type"))
    nullable = nullable or kind == "any"
    scalars = {**_SCALARS, "binary": binary}
    cast = _NESTED[kind](spec, binary) if kind in _NESTED else scalars.get(kind, _any)

    def nulled(value: object) -> object:
        if value is None:
            if nullable:
                return None
            raise Mismatch(f"a value of type {kind}")
        return cast(value)

    return nulled


def integer_within(low: int, high: int) -> Cast:
    """The cast to an integer from `low` to `high`, both included."""

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
    """The whole number that a text is, in ASCII digits."""
    if _WHOLE.fullmatch(text):
        return int(text)
    raise Mismatch("a whole number")


def to_double(value: object) -> float | None:
    """A float; NaN becomes None, the seam's missing value."""
    try:
        if isinstance(value, (int, float)) or (isinstance(value, str) and value.isascii() and "_" not in value):
            number = float(value)
            return None if math.isnan(number) else number
    except (ValueError, OverflowError):
        pass
    raise Mismatch("a number")


def to_string(value: object) -> str:
    """The string itself."""
    if isinstance(value, str):
        return value
    raise Mismatch("a string")


def to_boolean(value: object) -> bool:
    """true and false, 1 and 0, and as CSV and Python write them."""
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _TRUTH:
        return _TRUTH[value.strip().lower()]
    raise Mismatch("true or false")


def to_datetime(value: object) -> datetime:
    """A datetime without a zone, in UTC where the text names one; a number is nanoseconds since 1970, as in pandas."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _EPOCH + timedelta(microseconds=value / 1000)
        if isinstance(value, str):
            return _parse_datetime(value.strip())
    except (ValueError, OverflowError):
        pass
    raise Mismatch("a date and time such as 2026-11-22T09:30:00")


def from_base64(value: object) -> bytes:
    """Base64, line breaks allowed."""
    try:
        if isinstance(value, str):
            return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        pass
    raise Mismatch("bytes in base64")


def from_ascii(value: object) -> bytes:
    """The bytes of an ASCII string: what numpy makes of text in a binary column."""
    if isinstance(value, str) and value.isascii():
        return value.encode("ascii")
    raise Mismatch("bytes as ASCII text")


def _parse_datetime(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        for form in _DATES:
            try:
                return datetime.strptime(text, form)
            except ValueError:
                continue
        raise
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


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
        if lacking := [name for name in required if name not in value]:
            raise Mismatch(f"an object with the property {lacking[0]!r}")
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
