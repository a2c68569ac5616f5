"""One value through every interface, continued: columns of Spark, in UDFs and in jobs.

The reference is plain MLflow for one row of the same Arrow column, in which a `timestamp` is local to the session, as
`mlflow.pyfunc.spark_udf` makes it.
"""

from __future__ import annotations

import itertools
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
from tests.support.spy import Faults, Refused, Spy, SpyFolder, difference, field_of
from tests.support.spy_sources import InexpressibleError, csv_text, json_lines, parquet_file, scored
from tests.support.spy_values import (
    COLUMNS,
    FIELD,
    LIMITS,
    NESTED,
    SCHEMAS,
    arrow_array,
    arrow_type,
    arrow_values,
    kinds_of,
    lossless,
    natural,
    nullable,
    one_column,
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
WIDE = {  # columns of models with several; times are below, and plain MLflow refuses arrays of unequal arrays
    "optional": ("string", "integer", "long", "float", "double", "boolean", "binary"),
    "optional nested": tuple(name for name in NESTED if name != "array of arrays"),
}
OTHERS: list[tuple[str, pa.DataType, st.SearchStrategy[Any]]] = [
    ("integer", pa.int64(), whole(*LIMITS["long"])),
    ("long", pa.decimal128(20, 0), st.integers(0, 2**64 - 1).map(Decimal)),
    ("double", pa.int64(), whole(*LIMITS["long"])),
    ("double", pa.decimal128(20, 2), arrow_values(pa.decimal128(20, 2))),
    ("double", pa.string(), st.sampled_from(["2.5", "x", "1e400"])),
    ("float", pa.float64(), arrow_values(pa.float64())),
    ("boolean", pa.int32(), st.sampled_from([0, 1, 2])),
    ("datetime", pa.timestamp("us"), MICROSECONDS),
    ("datetime", pa.timestamp("us", "UTC"), MICROSECONDS.map(lambda m: m.tz_localize("UTC"))),
    ("datetime", pa.date32(), st.dates(date(1700, 1, 1), date(2200, 1, 1))),
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
    """All columns in one query, those of other types than the signature's each with a model of one optional field."""
    from pyspark.sql.functions import col, struct

    zone = spark.conf.get("spark.sql.session.timeZone")
    kinds = {kind: specs_of(one_column(kind, required=False))[FIELD] for kind in COLUMNS}
    table = {"row": pa.array(range(ROWS))}
    for kind in itertools.chain(*WIDE.values()):
        values = [None, *(with_all_properties(kinds[kind], value) for value in pool(natural(kinds[kind]), ROWS - 1))]
        values = values if nullable(kinds[kind]) else values[1:]
        table[kind] = arrow_array(filled(values), arrow_type(kinds[kind]))
    for at, (_, of, values) in enumerate(OTHERS):
        table[f"c{at}"] = arrow_array(filled([None, *pool(values, ROWS - 1)]), of)
    frame = spark.read.parquet(str(parquet_file(tmp_path / "in.parquet", pa.table(table))))

    calls: list[tuple[Spy, dict[str, str]]] = []  # a model, and its fields by column
    for name, columns in WIDE.items():
        fields_of = {kind: f"the {kind}" if name == "optional" else kind for kind in columns}
        calls.append((spies.signed(name, SCHEMAS[name]), fields_of))
    for at, (kind, _, _) in enumerate(OTHERS):
        calls.append((spies.signed(f"optional {kind}", one_column(kind, required=False)), {f"c{at}": FIELD}))
    answers = {
        row["row"]: row
        for row in frame.select(
            "row",
            *(
                likewise.spark.udf(spark, spy.bundle, "string", on_error="null")(
                    struct(*(col(column).alias(field) for column, field in of.items()))
                ).alias(f"answer{at}")
                for at, (spy, of) in enumerate(calls)
            ),
        ).collect()
    }
    faults = Faults()
    for (at, (spy, of)), row in itertools.product(enumerate(calls), range(ROWS)):
        seen = {field: local(table[column], zone).slice(row, 1) for column, field in of.items()}
        specs = {field: spec for field, spec in specs_of_model(spy).items() if field in seen}
        exact = {name: lossless(specs[name], python_value(column), text=False) for name, column in seen.items()}
        reference = spy.reference_row(pa.table(seen).to_pandas(maps_as_pydicts="strict"))
        text = answers[row][f"answer{at}"]
        fault = difference(Refused("") if text is None else json.loads(text), reference, exact, kinds_of(specs))
        faults.add(f"{exact}: {fault}" if fault else None, *map(str, of), (fault and field_of(fault)) or "")
    faults.check()


def specs_of_model(spy: Spy) -> dict[str, Any]:
    """The types of the model's fields by name."""
    return {str(field.name): {**field.raw, "required": field.required} for field in spy.signature.inputs or ()}


def filled(values: list[Any]) -> list[Any]:
    """Exactly ROWS values."""
    return (values * ROWS)[:ROWS]


def python_value(column: pa.Array) -> Any:
    """The value of a column of one."""
    if pa.types.is_timestamp(column.type):
        return column.to_pandas().iloc[0] if column[0].is_valid else None
    return column.to_pylist(maps_as_pydicts="strict")[0]


@pytest.mark.parametrize(
    ("name", "suffix"), [("required", "csv"), ("optional nested", "jsonl"), ("optional nested", "parquet")]
)
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
