"""One value through every interface, continued: columns of Spark, in UDFs and in jobs.

The reference is plain MLflow for one row of the same Arrow column, in which a `timestamp` is local to the session, as
`mlflow.pyfunc.spark_udf` makes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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
from tests.support.spy import Faults, Refused, Row, Spy, SpyFolder, difference, field_of
from tests.support.spy_sources import InexpressibleError, csv_text, json_lines, scored
from tests.support.spy_values import (
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
    faults = Faults()
    for name, columns in WIDE.items():
        schema, table = SCHEMAS[name], {}
        for field in (field for field in schema.input_names() if field.removeprefix("the ") in columns):
            spec = specs_of(schema)[field]
            values = [with_all_properties(spec, value) for value in pool(natural(spec), ROWS)]
            table[field] = arrow_array(filled([None, *values] if nullable(spec) else values), arrow_type(spec))
        check(spark, spies.signed(name, schema), table, tmp_path / f"{name}.parquet", faults)
    faults.check()


def test_a_udf_refuses_other_types_or_gets_them_exactly(spark: Any, spies: SpyFolder, tmp_path: Path) -> None:
    """Each row has a value of one column; the others are null, or 5 where null is refused."""
    schema = Schema([ColSpec(kind, f"{kind} {at}", required=False) for at, (kind, _, _) in enumerate(OTHERS)])
    names = schema.input_names()
    rows, tested = [], []
    for at, (_, _, values) in enumerate(OTHERS):
        usual = [5 if kind == "integer" else Decimal(5) if kind == "long" else None for kind, _, _ in OTHERS]
        found = [[*usual[:at], value, *usual[at + 1 :]] for value in pool(values, ROWS)]
        rows += found
        tested += [names[at]] * len(found)
    columns = zip(names, OTHERS, zip(*rows, strict=True), strict=True)
    table = {name: arrow_array(values, of) for name, (_, of, _), values in columns}
    faults = Faults()
    check(spark, spies.signed("others", schema), table, tmp_path / "in.parquet", faults, tested)
    faults.check()


def check(
    spark: Any,
    spy: Spy,
    table: dict[str, pa.Array],
    source: Path,
    faults: Faults,
    tested: Sequence[str] = (),
) -> None:
    """Compare what a UDF gets for each row of a table with what plain MLflow hands to the model.

    tested: for each row the field to compare, by default all. The fields are optional, so the reference has only these.
    """
    from pyspark.sql.functions import col, struct

    zone = spark.conf.get("spark.sql.session.timeZone")
    count = len(next(iter(table.values())))
    pq.write_table(pa.table({"row": list(range(count)), **table}), source)
    predict = likewise.spark.udf(spark, spy.bundle, "string", on_error="null")
    query = spark.read.parquet(str(source)).select("row", predict(struct(*map(col, table))).alias("seen"))
    answers = {row["row"]: row["seen"] for row in query.collect()}
    specs = {name: spec for name, spec in specs_of_model(spy).items() if name in table}
    for at in range(count):
        compared = [tested[at]] if tested else list(table)
        seen = {name: local(table[name], zone).slice(at, 1) for name in compared}
        exact = {name: lossless(specs[name], python_value(column), text=False) for name, column in seen.items()}
        reference = spy.reference_row(pa.table(seen).to_pandas(maps_as_pydicts="strict"))
        answer: Row | Refused = Refused("")
        if answers[at] is not None:
            answer = {"frame": [field for field in json.loads(answers[at])["frame"] if field[0] in compared]}
        fault = difference(answer, reference, exact, kinds_of(specs))
        shown = exact.get(field_of(fault), exact)
        faults.add(f"{shown}: {fault}" if fault else None, field_of(fault))


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
