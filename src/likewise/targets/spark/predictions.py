"""Conversion of predictions to values of one Arrow type, by the rules of `spark_udf`.

The column is selected by its type, for all rows of a call alike; then each value is converted without loss, or refused.
Source: MLflow's documentation of `mlflow.pyfunc.spark_udf`, `result_type`.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from functools import cached_property, partial
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from likewise.batch.values import as_cell
from likewise.core.errors import LikewiseError, RowRefused, WrongUsage
from likewise.core.extras import need
from likewise.core.results import Failed, Result
from likewise.core.text import unicode_fault
from likewise.engine.plain_values import plain
from likewise.targets.spark.answers import NO_ELEMENT, Answer, Kind, answer_of, is_missing, positions

Convert = Callable[[object], object]
INTEGERS = frozenset({Kind.SMALL, Kind.LONG, Kind.UNSIGNED})
NUMBERS = INTEGERS | {Kind.FLOAT}
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,40}\s*", re.ASCII)
_OFFSET = re.compile(r"(?:UTC|GMT)?([+-]\d\d:\d\d)")


class WrongResultType(ValueError):
    """A prediction that cannot be converted to the result type."""


@dataclass(frozen=True)
class ResultType:
    """The type of a UDF's or a frame's predictions.

    kind: a `pyarrow.DataType`.  zone: the session's time zone, in which a model's naive times are.  prints: whether a
    nested value as text is what Python prints, as in `spark_udf`; else it is JSON.
    """

    kind: Any
    zone: str = "UTC"
    prints: bool = False

    @cached_property
    def convert(self) -> Convert:
        """A function that converts an engine's prediction; raises WrongResultType or OverflowError for one."""
        return converter(self)


def arrow_array(results: Sequence[Result], kind: ResultType, on_error: str) -> Any:
    """One value per result, as a `pyarrow.Array` of exactly the type `kind`.

    A row without a prediction is null if `on_error` is `null`, else its error is raised.
    """
    pairs = [_value(result, kind) for result in results]
    first_error = next((error for _, error in pairs if error is not None), None)
    if first_error is not None and on_error != "null":
        raise first_error
    return need("pyarrow", extra="batch").array([value for value, _ in pairs], kind.kind)


def values_and_errors(results: Sequence[Result], kind: ResultType) -> tuple[list[object], list[dict[str, str] | None]]:
    """One value and one error per result; one of the two is None (both, for a prediction that is null)."""
    pairs = [_value(result, kind) for result in results]
    return [value for value, _ in pairs], [None if error is None else error.as_dict() for _, error in pairs]


def _value(result: Result, kind: ResultType) -> tuple[object, LikewiseError | None]:
    if isinstance(result, Failed):
        return None, result.error
    try:
        return kind.convert(result.value), None
    except (WrongResultType, OverflowError, LikewiseError) as error:
        return None, RowRefused(
            f"the prediction does not fit the result type {kind.kind}: {error}",
            remedy="choose another result_type; 'string' accepts every prediction",
        )


def time_zone(name: str) -> tzinfo:
    """The zone of `spark.sql.session.timeZone`, a name or an offset; raises WrongUsage."""
    try:
        if (offset := _OFFSET.fullmatch(name)) is not None:
            return datetime.strptime(offset[1], "%z").tzinfo or UTC
        return ZoneInfo("UTC" if name == "Z" else name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise WrongUsage(
            f"this Python does not know the session's time zone {name}",
            remedy="set spark.sql.session.timeZone to a name such as Europe/Berlin; or pip install tzdata",
        ) from error


def converter(result: ResultType) -> Convert:
    """A function that converts a row's prediction, an `Answer` or a plain value, to the result type."""
    types = need("pyarrow", extra="batch").types
    kind = result.kind
    if types.is_list(kind):
        return partial(_all_of, _cast(kind, result), _cast(kind.value_type, result), _tiers(kind.value_type))
    if types.is_map(kind) or _is_variant(kind):
        return partial(_whole, _cast(kind, result))
    if types.is_struct(kind):
        return partial(_record_of, _cast(kind, result))
    return partial(_leftmost, _cast(kind, result), _tiers(kind))


def _tiers(kind: Any) -> tuple[frozenset[Kind], ...] | None:
    """The kinds of columns that can be converted to a type, the preferred ones first; None for any column."""
    types = need("pyarrow", extra="batch").types
    if types.is_integer(kind):
        small = frozenset({Kind.SMALL}), frozenset({Kind.LONG, Kind.UNSIGNED})
        return small if kind.bit_width <= 32 else (frozenset({Kind.SMALL, Kind.LONG}), frozenset({Kind.UNSIGNED}))
    if types.is_floating(kind):
        return (NUMBERS,)
    if types.is_decimal(kind):
        return (NUMBERS | {Kind.DECIMAL},)
    return next(((frozenset({of}),) for is_kind, (of, _) in _SCALARS.items() if getattr(types, is_kind)(kind)), None)


def _leftmost(cast: Convert, tiers: tuple[frozenset[Kind], ...] | None, value: object) -> object:
    answer = answer_of(value)
    return cast(answer.values[_columns(answer, tiers)[0]])


def _columns(answer: Answer, tiers: tuple[frozenset[Kind], ...] | None) -> Sequence[int]:
    """The columns that can be converted; if there are only nulls, all of them."""
    if tiers is None and answer.values:
        return range(len(answer.values))
    found = positions(answer.kinds, tiers or ()) or positions(answer.kinds, (frozenset({Kind.EMPTY}),))
    if not found:
        raise WrongResultType(f"it has no column of that type: {_short(_shown(answer))}")
    return found


def _all_of(whole: Convert, cast: Convert, tiers: tuple[frozenset[Kind], ...] | None, value: object) -> object:
    """An array: a list of the model's own, or the columns that can be converted to the type of its elements."""
    answer = answer_of(value)
    only = answer.values[0] if len(answer.values) == 1 else NO_ELEMENT
    if _is_list(only):
        return whole(only) if not _is_list(answer.element) else _either(whole, answer)
    if answer.element is None or (is_missing(only) and answer.kinds[0] in (Kind.EMPTY, Kind.OTHER)):
        return None
    if _is_list(answer.element) and not answer.values:
        return []
    return [cast(answer.values[index]) for index in _columns(answer, tiers)]


def _either(whole: Convert, answer: Answer) -> object:
    """A row that is a list of one list: of nested arrays, or of one column that holds an array."""
    try:
        return whole(answer.element)
    except (WrongResultType, OverflowError) as error:
        try:
            return whole(answer.values[0])
        except (WrongResultType, OverflowError):
            raise error from None


def _whole(cast: Convert, value: object) -> object:
    """A map, or another value that is not spread into columns: the element itself, or the leftmost column."""
    answer = answer_of(value)
    return cast(answer.values[0] if answer.element is NO_ELEMENT else answer.element)


def _record_of(cast: Convert, value: object) -> object:
    answer = answer_of(value)
    element = answer.element
    named = (
        element is NO_ELEMENT or isinstance(element, Mapping) or hasattr(element, "_asdict") or is_dataclass(element)
    )
    return cast(dict(zip(answer.names, answer.values, strict=True)) if named else element)


def _cast(kind: Any, result: ResultType) -> Convert:
    """A conversion to exactly this type: null for a missing value; raises WrongResultType or OverflowError."""
    if _is_text(kind):
        text = _printed if result.prints else text_of  # which can express NaN but not null
        return lambda value: None if is_missing(value) and not isinstance(value, float) else text(value)
    exact = _exact(kind, result)
    return lambda value: None if is_missing(value) else exact(value)


def _exact(kind: Any, result: ResultType) -> Convert:
    types = need("pyarrow", extra="batch").types
    if _is_variant(kind):
        return _variant
    if types.is_struct(kind):
        return partial(_record, {field.name: _cast(field.type, result) for field in kind})
    if types.is_map(kind):
        return partial(_entries, _cast(kind.item_type, result))
    if types.is_list(kind) or types.is_large_list(kind):
        return partial(_elements, _cast(kind.value_type, result))
    if types.is_timestamp(kind) and kind.tz:
        return partial(_time, time_zone(result.zone))
    return _exact_scalar(kind)


def _exact_scalar(kind: Any) -> Convert:
    types = need("pyarrow", extra="batch").types
    if types.is_integer(kind):
        return partial(_integer, kind.bit_width)
    if types.is_floating(kind):
        return partial(_number, kind.bit_width)
    if types.is_decimal(kind):
        return partial(_decimal, kind.scale)
    for is_kind, (_, convert) in _SCALARS.items():
        if getattr(types, is_kind)(kind):
            return convert
    raise RowRefused(f"a prediction cannot be of type {kind}", remedy="choose another result_type")


def _is_text(kind: Any) -> bool:
    types = need("pyarrow", extra="batch").types
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_variant(kind: Any) -> bool:
    """Whether this is Spark's type `variant`, which Arrow represents as a struct that is marked by its metadata."""
    if not need("pyarrow", extra="batch").types.is_struct(kind):
        return False
    return any(field.metadata and field.metadata.get(b"variant") == b"true" for field in kind)


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) > 0


def _variant(value: Any) -> object:
    """A `VariantVal` of the model's, or any value that has a JSON form."""
    if not (hasattr(value, "metadata") and hasattr(value, "value")):
        text = json.dumps(plain(value), default=as_cell)
        value = need("pyspark.sql.types", extra="spark").VariantVal.parseJson(text)
    return {"value": value.value, "metadata": value.metadata}


def _record(casts: Mapping[str, Convert], value: Any) -> object:
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    elif is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        if missing := [name for name in casts if name not in value]:
            raise WrongResultType(f"it has no `{missing[0]}`: {_short(value)}")
        return {name: cast(value[name]) for name, cast in casts.items()}
    if not _is_list(value) or len(value) != len(casts):
        raise WrongResultType(f"expected a record of {', '.join(casts)}, got {_short(value)}")
    return {name: cast(member) for (name, cast), member in zip(casts.items(), value, strict=True)}


def _entries(cast: Convert, value: object) -> object:
    if not isinstance(value, Mapping):
        raise WrongResultType(f"expected a mapping, got {_short(value)}")
    return [(str(key), cast(member)) for key, member in value.items()]


def _elements(cast: Convert, value: Any) -> object:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        raise WrongResultType(f"expected a list, got {_short(value)}")
    return [cast(member) for member in value]


def _printed(value: object) -> str:
    """A value as `spark_udf` prints it; WrongResultType for lone surrogates."""
    text = str(value)
    if fault := unicode_fault(text, "it"):
        raise WrongResultType(fault.cause)
    return text


def text_of(value: object) -> str:
    """A value as text, a record or a list as JSON; WrongResultType for lone surrogates."""
    value = plain(value)
    return _printed(value if isinstance(value, (str, bool, int, float, date)) else as_cell(value))


def _integer(bits: int, value: Any) -> int:
    limit = 1 << (bits - 1)
    number = _whole_number(value.item() if hasattr(value, "dtype") and hasattr(value, "item") else value)
    if number is None or not -limit <= number < limit:
        raise WrongResultType(f"{_short(value)} is not an integer of {bits} bits")
    return number


def _whole_number(value: object) -> int | None:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else None
    if isinstance(value, (float, Decimal)) and math.isfinite(value) and value == int(value):
        return int(value)
    return None


def _number(bits: int, value: Any) -> float:
    """A float; a double is rounded to 32 bits, as the result type `float` demands, but no integer is."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise WrongResultType(f"{_short(value)} is not a number") from None
    stored: float = number if bits == 64 else struct.unpack("<f", struct.pack("<f", number))[0]
    if hasattr(value, "__index__") and int(value) != stored:
        raise WrongResultType(f"a float of {bits} bits cannot represent {_short(value)}")
    return number


def _decimal(scale: int, value: Any) -> Decimal:
    try:
        number = Decimal(str(value))
        exact = number.quantize(Decimal(1).scaleb(-scale))
    except InvalidOperation:
        raise WrongResultType(f"{_short(value)} is not a decimal number") from None
    if exact != number:
        raise WrongResultType(f"{_short(value)} has more than {scale} decimal places")
    return exact


def _boolean(value: Any) -> bool:
    if isinstance(value, str) or _is_list(value) or value not in (0, 1):
        raise WrongResultType(f"{_short(value)} is neither true nor false")
    return bool(value)


def _time(zone: tzinfo | None, value: Any) -> datetime:
    """A time in UTC for `timestamp`, whose naive values are in the session's zone; a naive one for `timestamp_ntz`."""
    if hasattr(value, "astype"):
        value = need("pandas", extra="mlflow").Timestamp(value)
    if not isinstance(value, datetime) or (zone is None and value.tzinfo is not None):
        raise WrongResultType(f"{_short(value)} is a {type(value).__name__}")
    if getattr(value, "nanosecond", 0):
        raise WrongResultType(f"{_short(value)} has nanoseconds, which Spark's times have not")
    moment = value.to_pydatetime() if hasattr(value, "to_pydatetime") else value
    # an hour that occurs twice is the second one, as in Spark's conversion from pandas
    return moment if zone is None or moment.tzinfo is not None else moment.replace(tzinfo=zone, fold=1)


def _date(value: object) -> date:
    if isinstance(value, datetime) or not isinstance(value, date):
        raise WrongResultType(f"{_short(value)} is a {type(value).__name__}")
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, (bytes, bytearray)):
        raise WrongResultType(f"{_short(value)} is a {type(value).__name__}")
    return bytes(value)


def _shown(answer: Answer) -> object:
    return answer.element if answer.element is not NO_ELEMENT else dict(zip(answer.names, answer.values, strict=True))


def _short(value: object) -> str:
    return repr(value)[:100]


# the name of pyarrow's predicate of a type: the kind of its columns, and the conversion to that type
_SCALARS: dict[str, tuple[Kind, Convert]] = {
    "is_boolean": (Kind.BOOLEAN, _boolean),
    "is_timestamp": (Kind.TIME, partial(_time, None)),
    "is_date": (Kind.DATE, _date),
    "is_binary": (Kind.BYTES, _bytes),
    "is_large_binary": (Kind.BYTES, _bytes),
}
