"""The conversion of a value to a type of MLflow's signature, the same for every interface.

A value is passed exactly or refused: `5.0` is a long and 1.5 is not; `"2.5"` is a double; 2**53 + 1 is not, because a
double cannot hold it.  MLflow truncates 1.5 to 1, wraps numbers that overflow and accepts any object in a string
column.  `docs/values.md` has the complete table, which is generated from this module.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Self

Cast = Callable[[object], object]

NULLABLE = frozenset({"string", "double", "float", "datetime", "any"})  # MLflow accepts null there even if required
NESTED = frozenset({"array", "object", "map", "any"})
INTEGERS = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
NANOSECONDS = (-(2**63) + 1, 2**63 - 1)  # since 1970; the smallest int64 is NumPy's missing value
_TRUTH = {"true": True, "false": False}
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,4000}\s*", re.ASCII)  # int() also accepts 1_000 and non-ASCII digits; max 4300
_EPOCH = datetime(1970, 1, 1)  # MLflow's datetimes have no time zone
_DATES = ("%Y/%m/%d", "%Y/%m/%d %H:%M:%S", "%m/%d/%Y", "%m/%d/%Y %H:%M:%S", "%Y-%m", "%Y")
_BEYOND_MICROSECONDS = re.compile(r"(.*:\d\d[.,]\d{6})(\d+)(.*)", re.ASCII | re.DOTALL)
_DIGITS = 40  # more than any integer type has
EXACT = 2**53  # integers up to this are exact as double
_FLOATS = {16: struct.Struct("<e"), 32: struct.Struct("<f")}


class Source(Enum):
    """Where a value comes from: it determines how text becomes bytes, and whether a number may be rounded to float."""

    TEXT = "text"
    """JSON, JSON Lines and CSV: binary is base64; numbers are decimals, rounded to a float as MLflow does."""
    ARRAYS = "arrays"
    """MLflow's `inputs` and `instances`: the same, but binary is ASCII text, as NumPy converts it."""
    TYPED = "typed"
    """Parquet, Arrow and pandas: binary is bytes; a number must fit a float exactly."""
    TENSORS = "tensors"
    """Open Inference Protocol: the same, but binary inside JSON text is base64."""

    @property
    def typed(self) -> bool:
        """Whether its values have types of Arrow, pandas or tensors."""
        return self in (Source.TYPED, Source.TENSORS)


class Mismatch(ValueError):
    """A value that does not have the expected type; the message names what was expected."""


class Nanoseconds(datetime):
    """A naive datetime with nanoseconds. nanosecond: 1 to 999, added to `microsecond`."""

    nanosecond: int = 0  # also of the results of arithmetic

    @classmethod
    def since_epoch(cls, nanoseconds: int) -> datetime:
        """The time `nanoseconds` after 1970; a plain `datetime` if microseconds suffice."""
        microseconds, rest = divmod(nanoseconds, 1000)
        whole = _EPOCH + timedelta(microseconds=microseconds)
        return cls.of(whole, rest) if rest else whole

    @classmethod
    def of(cls, whole: datetime, nanosecond: int) -> Self:
        """`whole`, which is naive, plus `nanosecond`."""
        made = cls(whole.year, whole.month, whole.day, whole.hour, whole.minute, whole.second, whole.microsecond)
        made.nanosecond = nanosecond
        return made

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:  # noqa: ARG002  always nanoseconds
        return f"{super().isoformat(sep, 'microseconds')}{self.nanosecond:03d}"

    def __repr__(self) -> str:
        return f"Nanoseconds({self.isoformat()})"

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        return Nanoseconds.since_epoch, (epoch_nanoseconds(self),)


def epoch_nanoseconds(value: datetime) -> int:
    """The nanoseconds from 1970 to `value`, which is naive."""
    since = value - _EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000 + getattr(value, "nanosecond", 0)


def cast_for(spec: Mapping[str, object], *, nullable: bool, source: Source) -> Cast:
    """The cast for one column, property or element; `spec` is its entry in the signature.

    The cast raises Mismatch.  Source: mlflow/types/schema.py, `ColSpec.to_dict`.
    """
    kind = str(spec.get("type"))
    nullable = nullable or kind == "any"
    if kind in _NESTED:
        cast = _NESTED[kind](spec, source)
    else:
        particular = {"binary": _BINARY[source], "float": rounding(32, source)}
        if source.typed:
            particular["datetime"] = _typed_datetime
        cast = {**_SCALARS, **particular}.get(kind, unchanged)

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
        if type(value) is not int:
            value = _whole(value)
        if value is None or not low <= value <= high:
            raise Mismatch(f"a whole number from {low} to {high}")
        return value

    return cast


def _whole(value: object) -> int | None:
    """A number or its text as an integer; None if it is not a whole number, or not certainly exact."""
    if isinstance(value, str):
        if _WHOLE.fullmatch(value):
            return int(value)
        value = _decimal(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= EXACT else None  # a larger one may be rounded
    if isinstance(value, Decimal):
        small = value.is_finite() and value.adjusted() < _DIGITS  # 1e999999999 would take all memory
        return int(value) if small and value == value.to_integral_value() else None
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text) if text.isascii() and "_" not in text else None
    except InvalidOperation:
        return None


def to_whole(text: str) -> int:
    """Parse an integer written in ASCII digits; raises Mismatch."""
    if _WHOLE.fullmatch(text):
        return int(text)
    raise Mismatch("a whole number")


def to_double(value: object) -> float | None:
    """A float; NaN becomes None, which marks a missing value.

    Integers and decimals must be exact, or the shortest text of the double must be their text.  Raises Mismatch.
    """
    if type(value) is float:
        return None if value != value else value
    if isinstance(value, str):
        number = _of_text(value)
    elif isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        number = _exact(value)
    elif isinstance(value, float):
        number = float(value)
    else:
        raise Mismatch("a number")
    return None if math.isnan(number) else number


def _of_text(text: str) -> float:
    if _WHOLE.fullmatch(text):
        return _exact(int(text))
    try:
        number = float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        number = None
    if number is None:
        raise Mismatch("a number")
    if math.isinf(number) and any(character.isdigit() for character in text):
        raise Mismatch("a number within ±1.8e308")
    return number


def _exact(value: int | Decimal) -> float:
    try:
        number = float(value)
    except (OverflowError, ValueError) as error:  # ValueError: a signaling NaN
        raise Mismatch("a number within ±1.8e308") from error
    if number != number or number == value or (math.isfinite(number) and Decimal(repr(number)) == value):
        return number
    raise Mismatch("a number that a double holds exactly" if math.isfinite(number) else "a number within ±1.8e308")


def parse_number(text: str) -> float | Decimal:
    """For `json.loads(parse_float=…)`: a Decimal, not infinity, if a double overflows."""
    return number if math.isfinite(number := float(text)) else Decimal(text)


def rounding(bits: int, source: Source) -> Cast:
    """The cast to a float of 16, 32 or 64 bits: text is rounded to the nearest; integers and typed values are exact."""
    packed, exact = _FLOATS.get(bits), source.typed

    def cast(value: object) -> float | None:
        number = to_double(value)
        if packed is None or number is None or not math.isfinite(number):
            return number
        try:
            rounded: float = packed.unpack(packed.pack(number))[0]
        except OverflowError as error:
            raise Mismatch(f"a number that a float of {bits} bits can hold") from error
        if rounded != number and (exact or isinstance(value, int)):
            raise Mismatch(f"a number that a float of {bits} bits holds exactly")
        return rounded

    return cast


def to_string(value: object) -> str:
    """`value` if it is a string, or UTF-8 in bytes (a Parquet column of text may lack its annotation).

    Raises Mismatch.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise Mismatch("text in UTF-8") from error
    raise Mismatch("a string")


def to_boolean(value: object) -> bool:
    """A bool from true/false, 1/0, or the strings "true"/"false" in any case; raises Mismatch."""
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _TRUTH:
        return _TRUTH[value.strip().lower()]
    raise Mismatch("true or false")


def to_datetime(value: object) -> datetime:
    """A naive datetime, converted to UTC if `value` has a time zone; a number is nanoseconds since 1970, as in pandas.

    Nanoseconds are kept, see `Nanoseconds`.  Raises Mismatch.
    """
    try:
        found = _datetime(value)
        if found is not None and NANOSECONDS[0] <= epoch_nanoseconds(found) <= NANOSECONDS[1]:
            return found
    except (ValueError, OverflowError):
        pass
    raise Mismatch("a date and time such as 2026-11-22T09:30:00, from 1677-09-22 to 2262-04-11")


def _typed_datetime(value: object) -> datetime:
    """`to_datetime`, but not of a number, whose unit is unknown; MLflow refuses it, too."""
    return to_datetime(None if isinstance(value, (int, float)) else value)


def _datetime(value: object) -> datetime | None:
    if isinstance(value, str):
        return _parse_datetime(value.strip())
    if isinstance(value, datetime):
        return _naive(value)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    whole = _whole(value)
    return None if whole is None else Nanoseconds.since_epoch(whole)


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


def to_bytes(value: object) -> bytes:
    """`value` if it is bytes; raises Mismatch."""
    if isinstance(value, bytes):
        return value
    raise Mismatch("bytes")


def _parse_datetime(text: str) -> datetime:
    nanosecond = 0
    if longer := _BEYOND_MICROSECONDS.fullmatch(text):
        digits = longer[2].rstrip("0")
        if len(digits) > 3:
            raise ValueError("finer than nanoseconds")
        nanosecond, text = int(digits.ljust(3, "0")), longer[1] + longer[3]
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        for form in _DATES:
            try:
                return datetime.strptime(text, form)
            except ValueError:
                continue
        raise
    naive = _naive(parsed)
    return Nanoseconds.of(naive, nanosecond) if nanosecond else naive


def _naive(value: datetime) -> datetime:
    """`value` in UTC without its time zone, of this module's types."""
    nanosecond = getattr(value, "nanosecond", 0)
    plain = datetime(*value.timetuple()[:6], value.microsecond, value.tzinfo, fold=value.fold)
    if plain.tzinfo is not None:
        plain = plain.astimezone(UTC).replace(tzinfo=None)
    return Nanoseconds.of(plain, nanosecond) if nanosecond else plain


def unchanged(value: object) -> object:
    """The cast to any type."""
    return value


def _array(spec: Mapping[str, object], source: Source) -> Cast:
    items = mapping_of(spec.get("items"))
    cast = cast_for(items, nullable=items.get("type") in ("double", "float"), source=source)  # null is NaN there

    def elements(value: object) -> object:
        if not isinstance(value, (list, tuple)):
            raise Mismatch("a list")
        return [_inside(f"element {i}", cast, element) for i, element in enumerate(value)]

    return elements


def _object(spec: Mapping[str, object], source: Source) -> Cast:
    properties = properties_of(spec)
    required = [name for name, p in properties.items() if p.get("required", True)]
    casts = {name: cast_for(p, nullable=name not in required, source=source) for name, p in properties.items()}

    def members(value: object) -> object:
        if not isinstance(value, dict):
            raise Mismatch("an object")
        if missing := [name for name in required if name not in value]:
            raise Mismatch(f"an object with the property {missing[0]!r}")
        if unknown := [name for name in value if name not in casts]:
            raise Mismatch(f"an object without the property {unknown[0]!r}")
        return {name: _inside(f"property {name!r}", casts[name], member) for name, member in value.items()}

    return members


def properties_of(spec: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """The entries of an object's properties in the signature, by name."""
    return {str(name): mapping_of(entry) for name, entry in mapping_of(spec.get("properties")).items()}


def _map(spec: Mapping[str, object], source: Source) -> Cast:
    cast = cast_for(mapping_of(spec.get("values")), nullable=False, source=source)

    def members(value: object) -> object:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise Mismatch("an object with names as keys")
        return {key: _inside(f"key {key!r}", cast, member) for key, member in value.items()}

    return members


def _inside(where: str, cast: Cast, value: object) -> object:
    try:
        return cast(value)
    except Mismatch as error:
        raise Mismatch(f"{error} in {where}") from error


def mapping_of(value: object) -> Mapping[str, object]:
    """`value`, a part of a signature; empty if it is not a mapping."""
    return value if isinstance(value, Mapping) else {}


_SCALARS: dict[str, Cast] = {
    "string": to_string,
    "double": to_double,
    "boolean": to_boolean,
    "datetime": to_datetime,
    **{kind: integer_within(*bounds) for kind, bounds in INTEGERS.items()},
}
_NESTED = {"array": _array, "object": _object, "map": _map}
_BINARY: dict[Source, Cast] = {
    Source.TEXT: from_base64,
    Source.ARRAYS: from_ascii,
    Source.TYPED: to_bytes,
    Source.TENSORS: lambda value: from_base64(value) if isinstance(value, str) else to_bytes(value),
}
