"""Values for the spy models: of each signature type, and of the types that files and requests can have instead.

A field is described as in MLflow's JSON of a signature (`ColSpec.to_dict`): `{"type": "long", "required": True}`.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType, Array, Map, Object, Property
from tests.support.spy import UNFIT

FieldSpec = Mapping[str, Any]
Values = st.SearchStrategy[Any]

GENERATED = settings(  # not shrunk: a fault names the field and its value, and each example tries many interfaces
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
NS_MIN, NS_MAX = -(2**63) + 1, 2**63 - 1  # of datetime64[ns]: 1677-09-21 to 2262-04-11; the lowest number is NaT
BITS = {"integer": 32, "long": 64}
LIMITS = {kind: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for kind, bits in BITS.items()}


def edges(*values: Any) -> Values:
    return st.sampled_from(values)


def whole(low: int, high: int) -> Values:
    """Integers of a range, its limits and those of other types weighted."""
    known = [0, 1, -1, 2**31, 2**53, 2**63, 2**64, 2**15, 2**7, 10**18]
    near = sorted({sign * n + step for n in known for sign in (1, -1) for step in (-1, 0, 1)} | {low, high})
    return st.sampled_from([n for n in near if low <= n <= high]) | st.integers(low, high)


def pool(values: st.SearchStrategy[Any], count: int) -> list[Any]:
    """`count` values, or fewer if there are not so many; for interfaces that get many rows at once."""
    found: list[Any] = []

    @settings(GENERATED, max_examples=count, phases=[Phase.generate], database=None)
    @given(values)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


def moment(nanoseconds: int) -> pd.Timestamp:
    return pd.Timestamp(nanoseconds, unit="ns").as_unit("ns")


TEXTS = edges(
    *(
        "",
        "NA",
        "null",
        "None",
        "nan",
        "true",
        "1e400",
        "5",
        "1.50",
        "007",
        " a ",
        "ß😀",
        "a\0b",
        "\0",
        "a\0",
        "'",
        "\\",
    ),
    *('a\n"b",c', "\r\n", "2026-01-02", "[1]", '{"a": 1}', "\ufeffa", "\u2028", "-", "=1+1", "a" * 300),
) | st.text(st.characters(codec="utf-8"), max_size=6)
DOUBLES = edges(
    *(
        0.0,
        -0.0,
        0.1,
        1.5,
        5e-324,
        -2.2250738585072014e-308,
        1.7976931348623157e308,
        1e22,
        2.0**53,
        -(2.0**63),
        2.0**64,
    ),
) | st.floats(allow_nan=False, allow_infinity=False)
FLOATS = edges(
    *(0.0, -0.0, 1.5, float(np.float32(0.1)), float(np.finfo(np.float32).max), 2.0**-149, -(2.0**-126), 2.0**24),
) | st.floats(width=32, allow_nan=False, allow_infinity=False)
MOMENTS = edges(
    *(
        moment(n)
        for n in (0, 1, -1, NS_MIN, NS_MAX, 999, 1_000, 1_767_323_045_123_456_789, -(10**18) - 1, 86_400 * 10**9)
    ),
) | st.integers(NS_MIN, NS_MAX).map(moment)
BYTES = edges(b"", b"\x9e\xe9e", b"\0", b"\0\xff", b"abc", b"a\0", b"\x80", b"AAH/") | st.binary(max_size=5)
ANYTHING: Values = st.recursive(
    st.none() | st.booleans() | whole(*LIMITS["long"]) | DOUBLES | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=4,
)
SCALARS: dict[str, Values] = {
    "string": TEXTS,
    "integer": whole(*LIMITS["integer"]),
    "long": whole(*LIMITS["long"]),
    "float": FLOATS,
    "double": DOUBLES,
    "boolean": st.booleans(),
    "datetime": MOMENTS,
    "binary": BYTES,
    "any": ANYTHING,
}
NULL_IF_REQUIRED = ("string", "float", "double", "datetime", "any")  # MLflow takes null there even if it is required
NULL_IF_OPTIONAL = ("boolean", "binary")  # not integers: numpy has no null for them


def nullable(spec: FieldSpec) -> bool:
    """Whether a column may be null without a loss."""
    kind = spec["type"]
    return kind in NULL_IF_REQUIRED or (
        not spec.get("required", True) and (kind in NULL_IF_OPTIONAL or kind in ("array", "object", "map"))
    )


def natural(spec: FieldSpec) -> Values:
    """Values of a field: str, int, float, bool, Timestamp, bytes, list, dict, and None for a null."""
    values = _inside(spec)
    return st.none() | values if nullable(spec) else values


def _inside(spec: FieldSpec) -> Values:
    """Values that are not null: inside arrays, maps and objects only an optional property may be null."""
    kind = spec["type"]
    if kind == "array":
        return st.lists(_inside(spec["items"]), max_size=3)
    if kind == "map":
        return st.dictionaries(st.text("ab ß", max_size=2), _inside(spec["values"]), max_size=3)
    if kind == "object":
        members = {name: _inside(member) for name, member in spec["properties"].items()}
        optional = {name for name, member in spec["properties"].items() if not member["required"]}
        return st.fixed_dictionaries(
            {name: value for name, value in members.items() if name not in optional},
            optional={name: st.none() | value for name, value in members.items() if name in optional},
        )
    return SCALARS[kind]


# --- the reference's frames ------------------------------------------------------------------------------------------

DTYPES = {"integer": "int32", "long": "int64", "float": "float32", "double": "float64", "datetime": "datetime64[ns]"}


def series(spec: FieldSpec, value: Any, *, arrays: bool = False) -> pd.Series[Any]:
    """One value as a column of the natural dtype. arrays: whether an array is one of NumPy; by default it is a list."""
    kind = spec["type"]
    if kind in DTYPES:
        return pd.Series([value], dtype=DTYPES[kind])
    if kind in ("string", "boolean", "binary") or kind == "any":
        return pd.Series([copy.deepcopy(value)])
    as_array = arrays and kind == "array" and value is not None
    return pd.Series([_array(spec["items"], value) if as_array else copy.deepcopy(value)], dtype=object)


def _array(spec: FieldSpec, values: list[Any]) -> Any:
    """A list as an array, of lists if these are not of equal length."""
    leaf = spec
    while leaf["type"] == "array":
        leaf = leaf["items"]
    dtype = {**DTYPES, "boolean": "bool"}.get(leaf["type"], "object")
    try:
        if dtype != "object" or spec is leaf:
            return np.array(copy.deepcopy(values), dtype=dtype)
    except ValueError:
        pass
    ragged = np.empty(len(values), object)
    ragged[:] = copy.deepcopy(values)
    return ragged


def frame(specs: Mapping[Any, FieldSpec], row: Mapping[Any, Any], *, arrays: bool = False) -> pd.DataFrame:
    """One row as a data frame of natural dtypes, see `series`."""
    return pd.DataFrame({name: series(specs[name], value, arrays=arrays) for name, value in row.items()})


# --- values that a source has instead --------------------------------------------------------------------------------


def lossless(spec: FieldSpec, value: Any, *, text: bool) -> Any:
    """The value that a field of this type has for `value`, without a loss; UNFIT if there is none.

    text: the source is JSON or CSV, whose numbers are rounded to the precision of a `float`.
    """
    kind = spec["type"]
    missing = value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value) and kind != "any")
    if missing or (kind in ("float", "double") and isinstance(value, str) and value.strip().lower() == "nan"):
        return None if nullable(spec) else UNFIT
    if kind == "any":
        return value
    if kind == "array":
        return _each(spec["items"], value, text) if isinstance(value, list) else UNFIT
    if kind == "map":
        return _members(dict.fromkeys(value, spec["values"]), value, text) if isinstance(value, dict) else UNFIT
    if kind == "object":
        return _object(spec["properties"], value, text)
    return _SCALAR[kind](value, text, kind)


def _each(spec: FieldSpec, values: list[Any], text: bool) -> Any:
    fitted = [UNFIT if value is None else lossless(spec, value, text=text) for value in values]
    return UNFIT if UNFIT in fitted else fitted


def _members(specs: Mapping[str, FieldSpec], value: dict[str, Any], text: bool) -> Any:
    fitted = {
        name: (None if not specs[name].get("required", True) else UNFIT)
        if member is None
        else lossless(specs[name], member, text=text)
        for name, member in value.items()
    }
    return UNFIT if any(member is UNFIT for member in fitted.values()) else fitted


def _object(properties: Mapping[str, FieldSpec], value: Any, text: bool) -> Any:
    needed = {name for name, member in properties.items() if member["required"]}
    if not isinstance(value, dict) or not needed <= set(value) <= set(properties):
        return UNFIT
    return _members(properties, value, text)


def _number(value: Any) -> Fraction | float | None:
    """A number as a fraction, infinity as a float; None for anything else, booleans included."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = Decimal(value.strip()) if value.isascii() and "_" not in value else None
        except ArithmeticError:
            return None
    if isinstance(value, Decimal) and not value.is_finite():
        return None if value.is_nan() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return value
    return Fraction(value) if isinstance(value, (int, float, Decimal, Fraction)) else None


def _whole(value: Any, text: bool, kind: str) -> Any:
    number = _number(value)
    low, high = LIMITS[kind]
    return int(number) if isinstance(number, Fraction) and number.denominator == 1 and low <= number <= high else UNFIT


def _double(value: Any, text: bool, kind: str) -> Any:
    number = _number(value)
    if isinstance(number, float):
        return number
    if number is None:
        return UNFIT
    try:
        double = float(value)
    except OverflowError:
        return UNFIT
    if math.isinf(double):  # 1e400
        return UNFIT
    counted = isinstance(value, (int, Decimal)) or (isinstance(value, str) and value.strip().lstrip("+-").isdigit())
    counted = counted and not (text and abs(number) >= 2**63)  # in JSON, an integer of more than 64 bits is a decimal
    return UNFIT if counted and number not in (Fraction(double), Fraction(Decimal(repr(double)))) else double


def _float(value: Any, text: bool, kind: str) -> Any:
    number = _number(value)
    if number is None:
        return UNFIT
    rounds = text or isinstance(value, Decimal)
    try:
        double = float(value) if rounds else _double(value, text, kind)
    except OverflowError:
        return UNFIT
    if double is UNFIT:
        return UNFIT
    with np.errstate(over="ignore", under="ignore"):
        single = float(np.float32(double))
    if math.isinf(single) and not math.isinf(double):
        return UNFIT
    return single if rounds or single == double else UNFIT


def _boolean(value: Any, text: bool, kind: str) -> Any:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower(), UNFIT)
    return bool(value) if isinstance(value, (bool, int, float, Decimal)) and value in (0, 1) else UNFIT


def _text(value: Any, text: bool, kind: str) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return UNFIT
    return value if isinstance(value, str) else UNFIT


def _binary(value: Any, text: bool, kind: str) -> Any:
    return value if isinstance(value, bytes) else UNFIT


def _datetime(value: Any, text: bool, kind: str) -> Any:
    """Naive, in UTC; a number counts nanoseconds since 1970."""
    if value is pd.NaT:
        return UNFIT
    if isinstance(value, pd.Timestamp):
        naive = value if value.tzinfo is None else value.tz_convert(None)
        try:
            return naive.as_unit("ns")
        except (OverflowError, ValueError):
            return UNFIT
    if isinstance(value, datetime):
        return _datetime(pd.Timestamp(value), text, kind)
    if isinstance(value, date):
        return _datetime(pd.Timestamp(value.isoformat()), text, kind)
    if isinstance(value, str):
        if not _ISO.match(value.strip()):  # pandas reads "5", "now" and more
            return UNFIT
        try:
            return _datetime(pd.Timestamp(value), text, kind)
        except (OverflowError, ValueError):
            return UNFIT
    number = _number(value)
    fits = isinstance(number, Fraction) and number.denominator == 1 and NS_MIN <= number <= NS_MAX
    return moment(int(number)) if fits and number is not None else UNFIT


_ISO = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_SCALAR = {
    "string": _text,
    "integer": _whole,
    "long": _whole,
    "float": _float,
    "double": _double,
    "boolean": _boolean,
    "datetime": _datetime,
    "binary": _binary,
}

NUMBERS_IN_JSON = (
    whole(-(2**65), 2**65)
    | DOUBLES
    | edges(*(5.0, -1.0, 1.5, 10**300, 2**53 + 1, 2**63, -(2**63) - 1, 2.0**63, 3.5e38, 1e39, 1e-50))
)
JSON_VALUES: Values = st.one_of(
    NUMBERS_IN_JSON,
    edges(
        *(
            "2.5",
            "5",
            "5.0",
            "1e400",
            "-1e400",
            "9007199254740993",
            "1_000",
            "٣",
            "abc",
            "",
            "nan",
            "inf",
            "0x10",
            "2.50",
        ),
        *("true", "False", "yes", "2026-01-02T03:04:05.123456789", "2026-01-02T03:04:05+02:00", "0001-01-01"),
        *("1677-09-21T00:12:43.145224193", "1677-09-21", "2262-04-11T23:47:16.854775807", "2262-04-12", "9999-12-31"),
        *("2026-02-30", "2026-01-02T03:04:05.123456789Z", "2026-01-02 03:04:05.5-11:30"),
        *(None, True, False, [], [1], {}, {"a": 1}, [None], ["a"]),
    ),
)
"""What JSON can have in a column of any type."""

# Values of Arrow types, as Python has them; times are Timestamps.
_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def _times(unit: str, zone: str | None) -> Values:
    far = {"s": 10**11, "ms": 10**14, "us": 9 * 10**16, "ns": NS_MAX}[unit]
    counts = edges(0, 1, -1, -far, far) | st.integers(-far, far) | st.integers(0, NS_MAX // _UNITS[unit])
    stamps = counts.map(lambda count: pd.Timestamp(np.datetime64(count, unit)))
    return stamps if zone is None else stamps.map(lambda stamp: stamp.tz_localize("UTC").tz_convert(zone))


def arrow_values(of: pa.DataType) -> Values:
    """Values that a column of this Arrow type can have, without null."""
    return next((values(of) for belongs, values in _ARROW_VALUES if belongs(of)), TYPED_TEXTS)


def _integers(of: pa.DataType) -> Values:
    low = 0 if pa.types.is_unsigned_integer(of) else -(2 ** (of.bit_width - 1))
    return whole(low, low + 2**of.bit_width - 1)


def _floats(of: pa.DataType) -> Values:
    if of.bit_width < 64:
        finite = FLOATS if of.bit_width == 32 else st.floats(width=16, allow_nan=False)
        return finite | edges(math.inf, math.nan, 2.0, 1.5, 65504.0)
    return DOUBLES | FLOATS | edges(math.inf, -math.inf, math.nan, 1e39, 4.5, 2.0**40, 5.0, -1.0)


def _decimals(of: pa.DataType) -> Values:
    known = edges(Decimal(0), Decimal("1.5") if of.scale else Decimal(3), Decimal(2**53 + 1))
    unit = Decimal(1).scaleb(-of.scale)
    return known.map(lambda d: d.quantize(unit)) | st.integers(-(10**17), 10**17).map(lambda n: n * unit)


def _structs(of: pa.DataType) -> Values:
    members = st.tuples(*(st.none() | arrow_values(member.type) for member in of))
    return members.map(lambda values: dict(zip([member.name for member in of], values, strict=True)))


DATES = edges(date(2026, 1, 2), date(1, 1, 1), date(9999, 12, 31), date(1677, 9, 22)) | st.dates()
TYPED_TEXTS = edges("5", "2.5", "true", "2026-01-02", "2026-01-02T03:04:05.123456789", "1e400") | TEXTS
_ARROW_VALUES: list[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType], Values]]] = [
    (pa.types.is_integer, _integers),
    (pa.types.is_floating, _floats),
    (pa.types.is_decimal, _decimals),
    (pa.types.is_boolean, lambda _: st.booleans()),
    (pa.types.is_timestamp, lambda of: _times(of.unit, of.tz)),
    (pa.types.is_date, lambda _: DATES),
    (pa.types.is_dictionary, lambda of: arrow_values(of.value_type)),
    (pa.types.is_fixed_size_binary, lambda of: st.binary(min_size=of.byte_width, max_size=of.byte_width)),
    (lambda of: of in (pa.binary(), pa.large_binary(), pa.binary_view()), lambda _: BYTES),
    (pa.types.is_null, lambda _: st.none()),
    (pa.types.is_map, lambda of: st.dictionaries(st.text("ab", max_size=2), arrow_values(of.item_type), max_size=2)),
    (pa.types.is_struct, _structs),
    (pa.types.is_list, lambda of: st.lists(arrow_values(of.value_type), max_size=3)),
]
INTEGER_TYPES = [getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)]
NUMBER_TYPES = [*INTEGER_TYPES, pa.float16(), pa.float32(), pa.float64(), pa.decimal128(20, 0), pa.decimal128(30, 4)]
TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
ODD_TYPES = [pa.bool_(), pa.string(), pa.null(), pa.list_(pa.int64())]
TIME_TYPES = [
    *(pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")),
    *(pa.timestamp("us", "UTC"), pa.timestamp("ns", "Europe/Berlin"), pa.timestamp("ms", "-08:00")),
    *(pa.date32(), pa.date64(), pa.int64(), pa.string()),
]
BINARY_TYPES = [pa.binary(), pa.large_binary(), pa.binary(3), pa.binary_view()]
SOURCES: dict[str, list[pa.DataType]] = {
    "string": [*TEXT_TYPES, *BINARY_TYPES[:1], pa.int64(), pa.null(), pa.list_(pa.string())],
    **{kind: [*NUMBER_TYPES, *ODD_TYPES] for kind in ("integer", "long", "float", "double")},
    "boolean": [pa.bool_(), pa.int64(), pa.float64(), pa.string(), pa.null()],
    "datetime": [*TIME_TYPES, pa.null()],
    "binary": [*BINARY_TYPES, pa.int64(), pa.null()],
    "any": [pa.int64(), pa.float32(), pa.string(), pa.bool_(), pa.list_(pa.int64()), pa.map_(pa.string(), pa.int64())],
}


def arrow_type(spec: FieldSpec) -> pa.DataType:
    """The natural Arrow type of a field."""
    kind = spec["type"]
    if kind == "array":
        return pa.list_(arrow_type(spec["items"]))
    if kind == "map":
        return pa.map_(pa.string(), arrow_type(spec["values"]))
    if kind == "object":
        return pa.struct([(name, arrow_type(member)) for name, member in spec["properties"].items()])
    return {
        "string": pa.string(),
        "integer": pa.int32(),
        "long": pa.int64(),
        "float": pa.float32(),
        "double": pa.float64(),
        "boolean": pa.bool_(),
        "datetime": pa.timestamp("ns"),
        "binary": pa.binary(),
    }[kind]


def arrow_array(values: Sequence[Any], of: pa.DataType) -> pa.Array:
    """The values as an Arrow array, exactly."""
    if pa.types.is_float16(of):
        return pa.array([None if value is None else np.float16(value) for value in values], of)
    if pa.types.is_timestamp(of):
        return pa.array([None if value is None else _count(value, of.unit) for value in values], pa.int64()).cast(of)
    if pa.types.is_map(of):
        return pa.array([None if value is None else list(value.items()) for value in values], of)
    return pa.array(values, of)


def _count(value: pd.Timestamp, unit: str) -> int:
    """Units since 1970; `Timestamp.value` counts nanoseconds, of which a far time has too many."""
    naive = value if value.tzinfo is None else value.tz_convert(None)
    return int(naive.asm8.astype(f"datetime64[{unit}]").astype(np.int64))


# --- signatures ------------------------------------------------------------------------------------------------------

Specs = dict[Any, FieldSpec]
KINDS = ("string", "integer", "long", "float", "double", "boolean", "datetime", "binary")
THING = Object(
    [
        Property("n", DataType.long),
        Property("x", DataType.double, required=False),
        Property("ok", DataType.boolean, required=False),
        Property("tags", Array(DataType.string), required=False),
        Property("inner", Object([Property("i", DataType.integer, required=False)]), required=False),
    ]
)
COLUMNS: dict[str, Any] = {
    **{kind: DataType[kind] for kind in KINDS},
    **{f"array of {kind}": Array(DataType[kind]) for kind in KINDS},
    "array of arrays": Array(Array(DataType.double)),
    "array of arrays of text": Array(Array(DataType.string)),
    "array of objects": Array(THING),
    "object": THING,
    "object of bytes and times": Object([Property("raw", DataType.binary), Property("at", DataType.datetime)]),
    "map": Map(DataType.long),
    "map of text": Map(DataType.string),
    "map of arrays": Map(Array(DataType.double)),
    "any": AnyType(),
    "array of any": Array(AnyType()),
}
FIELD = "the field"
ALONE = ("array of integer", "array of float", "array of datetime", "object of bytes and times")  # MLflow refuses most
NESTED = tuple(name for name in COLUMNS if name not in (*KINDS, *ALONE, "any", "array of any"))
SCHEMAS: dict[str, Schema] = {
    "required": Schema([ColSpec(DataType[kind], f"the {kind}") for kind in KINDS]),
    "optional": Schema([ColSpec(DataType[kind], f"the {kind}", required=False) for kind in KINDS]),
    "nested": Schema([ColSpec(COLUMNS[name], name) for name in NESTED]),
    "optional nested": Schema([ColSpec(COLUMNS[name], name, required=False) for name in NESTED]),
    "anything": Schema([ColSpec(AnyType(), "what"), ColSpec(Array(AnyType()), "many"), ColSpec("string", "text")]),
    "unnamed": Schema([ColSpec(DataType[kind]) for kind in KINDS]),
    **{f"unnamed {kind}": Schema([ColSpec(DataType[kind])]) for kind in KINDS},
    **{name: Schema([ColSpec(COLUMNS[name], FIELD)]) for name in ALONE},
}
WIDE = ("required", "optional", "nested", "optional nested", "anything", "unnamed")


def specs_of(schema: Schema) -> Specs:
    """The types by name; by index if there are no names."""
    raw: list[dict[str, Any]] = schema.to_dict()
    return {spec.get("name", at): spec for at, spec in enumerate(raw)}


def one_column(kind: str, *, required: bool = True) -> Schema:
    return Schema([ColSpec(COLUMNS[kind], FIELD, required=required)])


def kinds_of(specs: Specs) -> dict[str, str]:
    return {str(name): spec["type"] for name, spec in specs.items()}


def pandas_row(column: pa.Array) -> Any:
    """A column of one value as a data frame, as pandas and Spark make it, maps as dicts."""
    return pa.table({FIELD: column}).to_pandas(maps_as_pydicts="strict")


def with_all_properties(spec: FieldSpec, value: Any) -> Any:
    """The value as Arrow has it: an object has all of its properties, null if there is none."""
    if value is None:
        return None
    if spec["type"] == "array":
        return [with_all_properties(spec["items"], element) for element in value]
    if spec["type"] == "object":
        return {name: with_all_properties(of, value.get(name)) for name, of in spec["properties"].items()}
    return value
