"""One value through every interface, continued: columns of Spark, in UDFs and in jobs.

The reference is plain MLflow for one row of the same Arrow column, in which a `timestamp` is local to the session, as
`mlflow.pyfunc.spark_udf` makes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st
from mlflow.types import ColSpec, Schema
from tests.support.spy import Faults, Refused, Row, SpyFolder, difference
from tests.support.spy_sources import InexpressibleError, csv_text, json_lines, parquet_file, scored
from tests.support.spy_values import (
    FIELD,
    LIMITS,
    SCHEMAS,
    arrow_array,
    arrow_type,
    arrow_values,
    lossless,
    natural,
    one_column,
    pandas_row,
    pool,
    specs_of,
    whole,
    with_all_properties,
)

import likewise.spark

pytest_plugins = ("tests.support.spark.fixtures",)
pytestmark = [
    pytest.mark.xdist_group("spark"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
ROWS = 12
MICROSECONDS = st.integers(-9_000_000_000_000_000, 9_000_000_000_000_000).map(lambda n: pd.Timestamp(n, unit="us"))
NATURAL = (
    *("string", "integer", "long", "float", "double", "boolean", "binary"),
    *("array of long", "array of string", "array of double", "array of boolean", "object", "map", "map of arrays"),
)
OTHERS: list[tuple[str, pa.DataType, st.SearchStrategy[Any]]] = [
    ("integer", pa.int64(), whole(*LIMITS["long"])),
    ("integer", pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    ("long", pa.float64(), arrow_values(pa.float64())),
    ("long", pa.decimal128(20, 0), st.integers(0, 2**64 - 1).map(Decimal)),
    ("double", pa.int64(), whole(*LIMITS["long"])),
    ("double", pa.float32(), arrow_values(pa.float32())),
    ("double", pa.decimal128(20, 2), arrow_values(pa.decimal128(20, 2))),
    ("double", pa.string(), st.sampled_from(["2.5", "x", "1e400"])),
    ("float", pa.float64(), arrow_values(pa.float64())),
    ("boolean", pa.int32(), st.sampled_from([0, 1, 2])),
    ("datetime", pa.timestamp("us"), MICROSECONDS),
    ("datetime", pa.timestamp("us", "UTC"), MICROSECONDS.map(lambda m: m.tz_localize("UTC"))),
    ("datetime", pa.date32(), st.dates(date(1700, 1, 1), date(2200, 1, 1))),
    ("string", pa.int64(), whole(*LIMITS["long"])),
]


@pytest.fixture(scope="module")
def spies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpyFolder]:
    folder = SpyFolder(tmp_path_factory.mktemp("spies"))
    yield folder
    folder.close()


def local(column: pa.Array, zone: str) -> pa.Array:
    """The column with times that are local to a time zone, if it has a time zone."""
    if not pa.types.is_timestamp(column.type) or column.type.tz is None:
        return column
    return pc.local_timestamp(column.cast(pa.timestamp(column.type.unit, zone)))


def test_a_udf_gets_what_plain_mlflow_does(spark: Any, spies: SpyFolder, tmp_path: Path) -> None:
    """All columns in one query, each with its own model of one optional field."""
    zone = spark.conf.get("spark.sql.session.timeZone")
    columns: list[tuple[str, pa.Array]] = []
    for kind in NATURAL:
        (spec,) = specs_of(one_column(kind, required=False)).values()
        values = [None, *(with_all_properties(spec, value) for value in pool(natural(spec), ROWS - 1))]
        columns.append((kind, arrow_array(filled(values), arrow_type(spec))))
    columns += [(kind, arrow_array(filled([None, *pool(values, ROWS - 1)]), of)) for kind, of, values in OTHERS]
    table = pa.table({f"c{at}": column for at, (_, column) in enumerate(columns)} | {"row": list(range(ROWS))})
    frame = spark.read.parquet(str(parquet_file(tmp_path / "in.parquet", table)))
    models = [spies.signed(f"optional {kind}", one_column(kind, required=False)) for kind, _ in columns]
    udfs = [likewise.spark.udf(spark, spy.bundle, "string", on_error="null") for spy in models]
    query = frame.select("row", *(udf(f"c{at}").alias(f"c{at}") for at, udf in enumerate(udfs)))
    answers = {row["row"]: row for row in query.collect()}
    faults = Faults()
    for at, (kind, column) in enumerate(columns):
        (spec,) = specs_of(one_column(kind, required=False)).values()
        seen = local(column, zone)
        for row in range(ROWS):
            answer = seen_by_udf(answers[row][f"c{at}"])
            value = python_value(seen, row)
            reference = renamed(models[at].reference_row(pandas_row(seen.slice(row, 1))))
            fault = difference(answer, reference, {FIELD: lossless(spec, value, text=False)}, {FIELD: spec["type"]})
            faults.add(f"{value!r}: {fault}" if fault else None, kind, str(column.type))
    faults.check()


def filled(values: list[Any]) -> list[Any]:
    """Exactly ROWS values."""
    return (values * ROWS)[:ROWS]


def seen_by_udf(text: str | None) -> Row | Refused:
    """The answer with the field's name, whatever the model got."""
    return Refused("") if text is None else renamed(json.loads(text))


def renamed(row: Row | Refused) -> Row | Refused:
    if isinstance(row, Refused):
        return row
    return {"frame": [[FIELD, *field[1:]] for field in row["frame"]]}


def python_value(column: pa.Array, row: int) -> Any:
    if pa.types.is_timestamp(column.type):
        return None if not column[row].is_valid else column.slice(row, 1).to_pandas().iloc[0]
    return column.to_pylist(maps_as_pydicts="strict")[row]


@pytest.mark.parametrize("name", ["required", "optional nested"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_the_runner_gets_what_the_local_one_does(
    spark: Any, spies: SpyFolder, tmp_path: Path, name: str, suffix: str
) -> None:
    schema = SCHEMAS[name]
    specs = specs_of(schema)
    spy = spies.signed(name, schema)
    rows = []
    for row in pool(st.fixed_dictionaries({key: natural(spec) for key, spec in specs.items()}), 20):
        complete = {key: with_all_properties(specs[key], row[key]) for key in specs}
        try:
            csv_text(specs, [complete])
        except InexpressibleError:
            continue
        rows.append(complete)
    source = tmp_path / f"in.{suffix}"
    if suffix == "parquet":
        pq.write_table(
            pa.table({k: arrow_array([row[k] for row in rows], arrow_type(spec)) for k, spec in specs.items()}), source
        )
    else:
        source.write_bytes(csv_text(specs, rows) if suffix == "csv" else json_lines(specs, rows))
    here = scored(spy, source, tmp_path / "local.jsonl")
    there = scored(spy, source, tmp_path / "spark.jsonl", runner="spark")
    assert there == here
    assert not all(isinstance(row, Refused) for row in here)


def test_refusals_of_a_frame_name_the_field(spark: Any, spies: SpyFolder) -> None:
    spy = spies.signed("integer", Schema([ColSpec("integer", FIELD)]))
    frame = spark.createDataFrame([(2**40,), (5,)], f"`{FIELD}` bigint")
    scored_rows = likewise.spark.score_frame(frame, spy.bundle, result_type="string").collect()
    refused, taken = sorted(scored_rows, key=lambda row: -row[FIELD])
    assert refused["predictions"] is None
    assert FIELD in refused["error"]["cause"]
    assert json.loads(taken["predictions"])["frame"] == [[FIELD, "int32", ["numpy.int32", "5"]]]
