"""`docs/values.md`: what a model gets for a value, computed by the conversion itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
from tests.docs.generated import compare

from likewise.core.arrow import records_of
from likewise.core.casts import Mismatch, Source, parse_number
from likewise.core.fields import field_cast
from likewise.core.signature import Field

DTYPES = {
    "string": "str",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "boolean": "bool",
    "datetime": "datetime64[ns]",
    "binary": "object",
}
NESTED: dict[str, dict[str, Any]] = {
    "array of long": {"type": "array", "items": {"type": "long"}},
    "array of double": {"type": "array", "items": {"type": "double"}},
    "object {a: long, b: string, optional}": {
        "type": "object",
        "properties": {"a": {"type": "long"}, "b": {"type": "string", "required": False}},
    },
    "map of long": {"type": "map", "values": {"type": "long"}},
    "any": {"type": "any"},
}
TEXT = (
    *("null", "true", "0", "1", "5.0", "1.5", "0.1", "2147483648", "9007199254740993", "9223372036854775808", "1e39"),
    *("1e400", "NaN", '"a"', '"5"', '"2.5"', '"true"', '"AAH/"', '"2026-01-02T03:04:05.123456789"'),
    *('"2026-01-02T03:04:05+01:00"', '"2026-01-02"', "1000000000", "[1, 2]", '{"a": 1}'),
)
NESTED_TEXT = (
    "null",
    "1",
    "[]",
    "[1, 2.0]",
    "[1.5, null]",
    '["1"]',
    "{}",
    '{"a": 1}',
    '{"a": 1, "b": null}',
    '{"c": 1}',
)
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 6)
TYPED: tuple[tuple[pa.DataType, Any], ...] = (
    (pa.null(), None),
    (pa.bool_(), True),
    (pa.int8(), 1),
    (pa.int64(), 2**40),
    (pa.int64(), 2**53 + 1),
    (pa.uint64(), 2**63),
    (pa.float16(), 0.5),
    (pa.float32(), 0.5),
    (pa.float64(), 5.0),
    (pa.float64(), 0.1),
    (pa.float64(), float("nan")),
    (pa.decimal128(9, 2), Decimal("0.50")),
    (pa.decimal128(30, 25), Decimal("0.1234567890123456789012345")),
    (pa.string(), "a"),
    (pa.string(), "5"),
    (pa.string_view(), "2026-01-02"),
    (pa.binary(), b"\x00\x01\xff"),
    (pa.dictionary(pa.int32(), pa.string()), "a"),
    (pa.date32(), date(2026, 1, 2)),
    (pa.timestamp("us"), MOMENT),
    (pa.timestamp("ns"), 1_000_000_001),
    (pa.timestamp("us", "UTC"), MOMENT.replace(tzinfo=UTC)),
    (pa.timestamp("us", "Europe/Berlin"), MOMENT.replace(tzinfo=UTC)),
    (pa.list_(pa.int64()), [1, 2]),
)
NESTED_TYPED: tuple[tuple[pa.DataType, Any], ...] = (
    (pa.list_(pa.int32()), [1, 2]),
    (pa.list_(pa.float32()), [0.5, None]),
    (pa.list_(pa.int64()), [1, None]),
    (pa.list_(pa.string()), ["1"]),
    (pa.struct({"a": pa.int8()}), {"a": 1}),
    (pa.struct({"a": pa.int64(), "b": pa.string()}), {"a": 1, "b": None}),
    (pa.struct({"c": pa.int64()}), {"c": 1}),
    (pa.map_(pa.string(), pa.int64()), {"a": 1}),
    (pa.map_(pa.int64(), pa.int64()), {1: 1}),
)
HEAD = """# Values

A model gets the same value through every interface: HTTP in all JSON forms, CSV, JSON Lines, Parquet, the Open
Inference Protocol, Spark (UDF, `score_frame`, streaming and the job runner), jobs with `likewise score`, SageMaker's
CSV and JSON Lines, and `Bundle.predict` from Python. The reference is what
`mlflow.pyfunc.load_model(uri).predict(frame)` hands to the model's code. A value is **passed exactly or refused**; it
never depends on the other rows of its request, file or batch.

A refused value is an error of its row, which names the column and the row: `BAD_REQUEST` over HTTP (rows count from
0), `ROW_REFUSED` in the quarantine of a job (rows count from 1, with the line of the file) and in Spark. The tables
below are generated from the conversion (`likewise.core.casts`) by a test. A dash means that the value is refused.

## Text: JSON, JSON Lines and CSV

The head of each column is a type of the signature and the dtype of the column that the model gets. Numbers may be
written as strings; in CSV every value is. Binary values are base64. An empty field of a CSV, `NA`, `NaN`, `null` and
`None` are null in every column except text.
"""
TYPED_HEAD = """
## Types: Parquet, Arrow, Spark and pandas

Numbers are not rounded to `float`, because the source has exact numbers. A timestamp with a time zone becomes UTC
without one; in a Spark frame it becomes the session's time zone, as in `mlflow.pyfunc.spark_udf`. Tensors of the Open
Inference Protocol follow this table, too.

`Bundle.predict` hands a pandas object to the model's own code as MLflow does, and refuses what MLflow refuses: for
example an `int64` column for `double`, which the table below allows because each of its values is checked.
"""
NESTED_HEAD = """
## Nested types

Arrays, objects and maps follow the same rules for each element. From text, the model gets lists and dicts; from
Parquet, Arrow and Spark an array is a `numpy.ndarray`, as pandas reads it, and a map is a dict. Null in an array of
`float` or `double` is NaN. The model gets copies, which it may change.
"""
TAIL = """
## Null

Null is refused in a required column of type `integer`, `long`, `boolean` or `binary`, and always in `integer` and
`long`, because NumPy's integers have no null. In an optional column it is `None` for `boolean` and `binary`. It is
NaN in `float` and `double`, NaT in `datetime`, and `None` in `string`, `any` and optional nested columns.

## Tensors and type hints

A tensor's elements are converted to its dtype by the rules of `long` (with the bounds of its integer type), `double`
(exact in `float16` and `float32` unless the source is text), `boolean` and `string`. For a table with several
columns, an unnamed tensor gets the columns in order. Inputs of a model whose signature comes from type hints are
validated by MLflow, with pydantic; `bytes` are base64 in text. `inputs` must be the list that `predict` takes. A
`datetime` has no time zone here either, while MLflow's server keeps it; nanoseconds make it a `pandas.Timestamp`.

## No signature

Each interface gives the types that pandas gives. JSON and JSON Lines: the types of JSON, but in a column with null
among numbers all are doubles and null is NaN, by all values of the request or file; a null in a column without numbers
is `None`. CSV: each column is boolean, integer, float or text, by all values of the file or request, as in
`pandas.read_csv`. Parquet, Arrow and Spark: the dtypes with which pandas reads the Arrow types (`float32` stays
`float32`), but a map is a dict and an integer stays exact next to null. Rows of different requests that are predicted
together have equal types in each column, so a value of one request does not change the
type of another's.

## Params

The model gets `params` with the defaults of the signature. If the signature has none, it gets `None` if the request
has no `params`, and otherwise `{}`, as from MLflow.

## Differences from MLflow

| | MLflow | Likewise |
|---|---|---|
| 1.5 in `long`, 2**40 in `integer`, 2**53 + 1 in `double` | truncated, wrapped or rounded over HTTP | refused |
| a boolean in a column of numbers, a number in `string` | converted or accepted over HTTP | refused |
| null in a `boolean` column | `False` over HTTP | `None` if optional, else refused |
| null in a `string` column | `None` or NaN, depending on the other rows | `None` |
| a date and time with a time zone | refused | UTC (in Spark, the session's time zone) |
| a decimal that a double cannot hold | rounded | refused |
| a Parquet or Spark map | a list of tuples | a dict |
| without a signature, an integer next to null that a double cannot hold | a double, rounded | an integer |
"""


def shown(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, datetime):
        return value.isoformat()
    return f"`{value!r}`"


def outcome(raw: dict[str, Any], value: object, source: Source, required: bool) -> str:
    field = Field("x", str(raw["type"]), required, raw)
    try:
        return shown(field_cast(field, source)(value))
    except Mismatch:
        return "–"


def table(
    heads: Sequence[str], kinds: Sequence[dict[str, Any]], rows: Sequence[tuple[str, Any]], source: Source
) -> str:
    lines = [f"| {' | '.join(['value', *heads])} |", "|---" * (len(heads) + 1) + "|"]
    for label, value in rows:
        cells = [outcome(kind, value, source, kind["type"] not in ("array", "object", "map")) for kind in kinds]
        lines.append(f"| {' | '.join([label, *cells])} |")
    return "\n".join(lines) + "\n"


def from_json(texts: Sequence[str]) -> list[tuple[str, Any]]:
    return [(f"`{text}`", json.loads(text, parse_float=parse_number)) for text in texts]


def from_arrow(values: Sequence[tuple[pa.DataType, Any]]) -> list[tuple[str, Any]]:
    rows = []
    for kind, value in values:
        batch = pa.record_batch([pa.array([value], kind)], names=["x"])
        records, faults = records_of(batch)
        assert not faults
        sample = (
            "" if value is None else f" {value}" if not isinstance(value, (dict, datetime)) else f" {records[0]['x']}"
        )
        rows.append((f"{kind}{sample}".replace("|", "\\|"), records[0]["x"]))
    return rows


def test_the_page_shows_what_the_conversion_does() -> None:
    scalars: list[dict[str, Any]] = [{"type": kind} for kind in DTYPES]
    heads = [f"{kind} ({dtype})" for kind, dtype in DTYPES.items()]
    nested = list(NESTED.values())
    page = HEAD + "\n" + table(heads, scalars, from_json(TEXT), Source.TEXT)
    page += TYPED_HEAD + "\n" + table(heads, scalars, from_arrow(TYPED), Source.TYPED)
    page += NESTED_HEAD + "\n" + table(list(NESTED), nested, from_json(NESTED_TEXT), Source.TEXT)
    page += "\n" + table(list(NESTED), nested, from_arrow(NESTED_TYPED), Source.TYPED) + TAIL
    compare("docs/values.md", page)
