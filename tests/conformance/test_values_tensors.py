"""One value through every interface, continued: tensors, type hints, models without a signature, and pandas."""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.types import ColSpec, Schema, TensorSpec
from tests.support.oip import body_of
from tests.support.spy import Faults, Refused, Row, Spy, SpyFolder, difference, fields
from tests.support.spy_sources import CSV, JSON, JSON_LINES, json_value, parquet_file, scored
from tests.support.spy_values import (
    BYTES,
    DOUBLES,
    FLOATS,
    GENERATED,
    LIMITS,
    MOMENTS,
    TEXTS,
    arrow_array,
    pool,
    whole,
)

from likewise.container.forms import LineDecoder
from likewise.core.errors import BadRequest
from likewise.wire import Decoder
from likewise.wire.oip import decode_infer


def requested(spy: Spy, body: Any, media: str = JSON) -> list[Row | Refused]:
    """The answers to one request; its refusal stands for one row."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        return spy.called((Decoder if media != JSON_LINES else LineDecoder)(spy.signature)(raw, media))
    except BadRequest as error:
        return [Refused(error.cause)]


# --- tensors ---------------------------------------------------------------------------------------------------------

ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "int64": whole(*LIMITS["long"]),
    "int32": whole(*LIMITS["integer"]),
    "uint8": whole(0, 255),
    "float32": FLOATS,
    "float64": DOUBLES,
    "bool": st.booleans(),
    "str": TEXTS,
}
SHAPES = {"vector": (), "rows of three": (3,), "rows of two by two": (2, 2)}
TENSORS = [
    (dtype, shape) for dtype in ELEMENTS for shape in SHAPES if dtype in ("int64", "float32") or shape == "vector"
]


def nested(elements: st.SearchStrategy[Any], dims: tuple[int, ...]) -> st.SearchStrategy[Any]:
    for size in reversed(dims):
        elements = st.lists(elements, min_size=size, max_size=size)
    return elements


def flat(value: Any) -> list[Any]:
    return [leaf for part in value for leaf in flat(part)] if isinstance(value, list) else [value]


def array(value: Any, dtype: str) -> np.ndarray[Any, Any]:
    """An array of the dtype with one row."""
    return np.array([value], dtype=dtype)


def tensor_requests(value: Any, dtype: str, dims: tuple[int, ...]) -> dict[str, Any]:
    """Bodies with one row, by the name of the form."""
    leaves = flat(value)
    found: dict[str, Any] = {
        "inputs": {"inputs": [value]},
        "instances": {"instances": [value]},
        "dataframe_split": {"dataframe_split": {"columns": [str(i) for i in range(len(leaves))], "data": [leaves]}},
    }
    if len(dims) != 1:
        found["dataframe_split"] = {"dataframe_split": {"columns": ["x"], "data": [[value]]}}
    return found


@pytest.mark.parametrize(("dtype", "shape"), TENSORS)
def test_tensors_in_requests_are_what_plain_mlflow_gets(spies: SpyFolder, dtype: str, shape: str) -> None:
    dims = SHAPES[shape]
    spy = spies.signed(f"{dtype} {shape}", Schema([TensorSpec(np.dtype(dtype), (-1, *dims))]))
    faults = Faults()

    @settings(GENERATED, max_examples=12)
    @given(nested(ELEMENTS[dtype], dims))
    def check(value: Any) -> None:
        reference = spy.reference_row(array(value, dtype))
        bodies = tensor_requests(value, dtype, dims)
        for form, body in bodies.items():
            (answer,) = requested(spy, body)
            faults.add(difference(answer, reference, {"": value}, {}), form)
        plain = array(value, "object" if dtype == "str" else dtype)
        texts = np.vectorize(lambda text: text.encode(), otypes=[object])(plain) if dtype == "str" else plain
        (answer,) = spy.called(decode_infer(*body_of({"x": texts}), spy.signature))
        faults.add(difference(answer, reference, {"": value}, {}), "inference protocol")
        if len(dims) < 2:
            (answer,) = requested(spy, csv_of(flat(value)), CSV)
            faults.add(difference(answer, reference, {"": value}, {}), "CSV")

    check()
    faults.check()


def csv_of(*rows: list[Any]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow([f"c{at}" for at in range(len(rows[0]))])
    writer.writerows([v if isinstance(v, str) else json.dumps(v) for v in row] for row in rows)
    return out.getvalue().encode()


UNFIT_ELEMENTS = {
    "int64": [4.5, 2**63, "x", True, None, [1]],
    "int32": [2**31, -(2**31) - 1, 0.5],
    "uint8": [256, -1, 1.5, True],
    "float32": [3.5e38, "x", True, 2**53 + 1],
    "float64": [2**53 + 1, "x", "1e400", False],
    "bool": [2, 0.5, "maybe"],
    "str": [5, 1.5, True],
}


@pytest.mark.parametrize(("dtype", "value"), [(dtype, v) for dtype, values in UNFIT_ELEMENTS.items() for v in values])
def test_elements_that_do_not_fit_a_tensor_are_refused(spies: SpyFolder, dtype: str, value: Any) -> None:
    spy = spies.signed(f"{dtype} vector", Schema([TensorSpec(np.dtype(dtype), (-1,))]))
    good = {"str": "a", "bool": True}.get(dtype, 1)
    for body in ({"inputs": [good, value]}, {"dataframe_split": {"columns": ["x"], "data": [[good], [value]]}}):
        answer = requested(spy, body)[-1]
        assert isinstance(answer, Refused), answer
        assert "row 1" in answer.cause


@pytest.mark.parametrize(("dtype", "shape"), TENSORS)
def test_tensors_in_files_are_what_plain_mlflow_gets(spies: SpyFolder, tmp_path: Path, dtype: str, shape: str) -> None:
    """One column with lists, or a column for each element of a row (`predict(frame)` takes these in their order)."""
    dims = SHAPES[shape]
    spy = spies.signed(f"{dtype} {shape}", Schema([TensorSpec(np.dtype(dtype), (-1, *dims))]))
    values = pool(nested(ELEMENTS[dtype], dims), 10)
    of = pa.string() if dtype == "str" else pa.bool_() if dtype == "bool" else pa.from_numpy_dtype(np.dtype(dtype))
    lists = of
    for _ in dims:
        lists = pa.list_(lists)
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps({"x": value}) + "\n" for value in values))
    files = {
        "Parquet": parquet_file(tmp_path / "lists.parquet", pa.table({"x": pa.array(values, lists)})),
        "JSON Lines": tmp_path / "lists.jsonl",
    }
    if len(dims) < 2:
        columns = list(zip(*map(flat, values), strict=True))
        table = pa.table({f"c{at}": pa.array(column, of) for at, column in enumerate(columns)})
        files["Parquet columns"] = parquet_file(tmp_path / "columns.parquet", table)
        (tmp_path / "columns.csv").write_bytes(csv_of(*map(flat, values)))
        files["CSV columns"] = tmp_path / "columns.csv"
    faults = Faults()
    for form, source in files.items():
        for value, answer in zip(values, scored(spy, source, tmp_path / f"{form}.jsonl"), strict=True):
            reference = spy.reference_row(array(value, dtype))
            faults.add(difference(answer, reference, {"": value}, {}), form)
    faults.check()


NAMED = Schema(
    [
        TensorSpec(np.dtype("float32"), (-1, 3), "m"),
        TensorSpec(np.dtype("int64"), (-1,), "n"),
        TensorSpec(np.dtype("str"), (-1,), "t"),
    ]
)


def test_named_tensors_are_what_plain_mlflow_gets(spies: SpyFolder, tmp_path: Path) -> None:
    spy = spies.signed("named tensors", NAMED)
    rows = pool(
        st.fixed_dictionaries({"m": nested(FLOATS, (3,)), "n": ELEMENTS["int64"], "t": TEXTS}),
        15,
    )
    arrow = pa.table(
        {
            "m": pa.array([row["m"] for row in rows], pa.list_(pa.float32())),
            "n": [row["n"] for row in rows],
            "t": [row["t"] for row in rows],
        }
    )
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    jobs = {
        "Parquet": scored(spy, parquet_file(tmp_path / "in.parquet", arrow), tmp_path / "parquet.jsonl"),
        "JSON Lines": scored(spy, tmp_path / "in.jsonl", tmp_path / "jsonl.jsonl"),
    }
    faults = Faults()
    for at, row in enumerate(rows):
        arrays = {"m": array(row["m"], "float32"), "n": array(row["n"], "int64"), "t": array(row["t"], "str")}
        reference = spy.reference_row(arrays)
        coded = arrays | {"t": np.array([row["t"].encode()], dtype=object)}
        answers = {form: job[at] for form, job in jobs.items()} | {
            "instances": requested(spy, {"instances": [row]})[0],
            "inputs by column": requested(spy, {"inputs": {name: [value] for name, value in row.items()}})[0],
            "dataframe_records": requested(spy, {"dataframe_records": [row]})[0],
            "inference protocol": spy.called(decode_infer(*body_of(coded), spy.signature))[0],
        }
        for form, answer in answers.items():
            faults.add(difference(answer, reference, row, {}), form)
    faults.check()


# --- type hints ------------------------------------------------------------------------------------------------------

SMALL = st.integers(-(2**31), 2**31 - 1)
HINTS: dict[str, st.SearchStrategy[Any]] = {
    "list[str]": TEXTS,
    "list[int]": ELEMENTS["int64"],
    "list[float]": DOUBLES,
    "list[bool]": st.booleans(),
    "list[bytes]": BYTES,
    "list[datetime.datetime]": st.datetimes(datetime.datetime(1678, 1, 1), datetime.datetime(2262, 1, 1)),
    "list[list[float]]": st.lists(DOUBLES, max_size=3),
    "list[dict[str, int]]": st.dictionaries(st.sampled_from(["a", "b"]), SMALL, min_size=1),
    "list[Thing]": st.fixed_dictionaries({"n": ELEMENTS["int64"]}, optional={"name": TEXTS, "weight": DOUBLES}),
}


@pytest.mark.parametrize("hint", HINTS)
def test_elements_of_a_type_hint_are_what_plain_mlflow_gets(spies: SpyFolder, tmp_path: Path, hint: str) -> None:
    spy = spies.hinted(hint)
    values = pool(HINTS[hint], 20)
    written = [json_value(v.isoformat() if isinstance(v, datetime.datetime) else v) for v in values]
    records = hint in ("list[Thing]", "list[dict[str, int]]")
    lines = [json.dumps(value if records else {"x": value}) for value in written]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    jobs = {"JSON Lines": scored(spy, tmp_path / "in.jsonl", tmp_path / "jsonl.jsonl")}
    if not records:
        column = pa.array(values)
        source = parquet_file(tmp_path / "in.parquet", pa.table({"x": column}))
        jobs["Parquet"] = scored(spy, source, tmp_path / "parquet.jsonl")
    faults = Faults()
    for at, (value, sent) in enumerate(zip(values, written, strict=True)):
        reference = spy.reference_row([value])
        split = {"columns": ["x"], "data": [[sent]]}
        if records:
            split = {"columns": list(value), "data": [list(value.values())]}
        answers = {form: job[at] for form, job in jobs.items()} | {
            "inputs": requested(spy, {"inputs": [sent]})[0],
            "dataframe_split": requested(spy, {"dataframe_split": split})[0],
        }
        got = {} if isinstance(reference, Refused) else {"": fields(reference)[0][2]}
        for form, answer in answers.items():
            faults.add(
                None
                if isinstance(answer, dict) and {"": fields(answer)[0][2]} == got
                else f"{answer}, not {reference}",
                form,
            )
    faults.check()


def test_flat_rows_of_a_pydantic_hint_are_scored_with_its_defaults(spies: SpyFolder, tmp_path: Path) -> None:
    spy = spies.hinted("list[Thing]")
    frame = pd.DataFrame({"n": [1, 2], "name": ["a", "b"]})
    reference = spy.reference(frame)
    assert not isinstance(reference, Refused)
    frame.to_parquet(tmp_path / "in.parquet")
    frame.to_csv(tmp_path / "in.csv", index=False)
    for name in ("in.parquet", "in.csv"):
        assert scored(spy, tmp_path / name, tmp_path / f"{name}.jsonl") == reference
    spoken = spy.predicted(frame)
    assert spoken == reference


# --- without a signature ---------------------------------------------------------------------------------------------

LEAVES = st.booleans() | ELEMENTS["int64"] | DOUBLES | TEXTS
FREE = (
    st.none() | LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(st.sampled_from(["k", "l"]), LEAVES, max_size=2)
)


def test_json_without_a_signature_is_typed_as_pandas_does_for_each_row_alone(spies: SpyFolder, tmp_path: Path) -> None:
    spy = spies.signed("unsigned", None)
    rows = pool(st.fixed_dictionaries({"a": FREE, "b": FREE, "c": ELEMENTS["int64"]}), 40)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = scored(spy, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    faults = Faults()
    for at, row in enumerate(rows):
        reference = spy.reference_row(pd.DataFrame([list(row.values())], columns=list(row)))
        answers = {
            "dataframe_split": requested(
                spy, {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}
            )[0],
            "dataframe_records": requested(spy, {"dataframe_records": [row]})[0],
            "container JSON Lines": requested(spy, json.dumps(row).encode() + b"\n", JSON_LINES)[0],
            "JSON Lines": job[at],
        }
        for form, answer in answers.items():
            faults.add(difference(answer, reference, row, {}), form)
    faults.check()


SECONDS = st.integers(-(9 * 10**9), 9 * 10**9).map(lambda count: pd.Timestamp(count, unit="s"))
ARROW_COLUMNS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int64": (pa.int64(), ELEMENTS["int64"]),
    "int8": (pa.int8(), st.integers(-128, 127)),
    "uint64": (pa.uint64(), whole(0, 2**64 - 1)),
    "float32": (pa.float32(), FLOATS),
    "float64": (pa.float64(), DOUBLES),
    "bool": (pa.bool_(), st.booleans()),
    "string": (pa.string(), TEXTS),
    "binary": (pa.binary(), BYTES),
    "timestamp": (pa.timestamp("ns"), MOMENTS),
    "zoned timestamp": (pa.timestamp("us", "UTC"), SECONDS.map(lambda seconds: seconds.tz_localize("UTC"))),
    "date": (pa.date32(), st.dates()),
    "decimal": (pa.decimal128(20, 2), st.integers(-(10**17), 10**17).map(lambda n: Decimal(n).scaleb(-2))),
    "list": (pa.list_(pa.int64()), st.lists(ELEMENTS["int64"], max_size=3)),
    "map": (pa.map_(pa.string(), pa.int64()), st.dictionaries(st.sampled_from(["a", "b"]), SMALL, max_size=2)),
    "struct": (
        pa.struct([("i", pa.int64()), ("s", pa.string())]),
        st.builds(lambda i, s: {"i": i, "s": s}, SMALL, TEXTS),
    ),
    "category": (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["a", "b"])),
}


@pytest.mark.parametrize("name", ARROW_COLUMNS)
def test_parquet_without_a_signature_is_what_pandas_reads(spies: SpyFolder, tmp_path: Path, name: str) -> None:
    of, values = ARROW_COLUMNS[name]
    spy = spies.signed("unsigned", None)
    found = [*pool(values, 8), None]
    table = pa.table({"a": arrow_array(found, of), "row": list(range(len(found)))})
    got = scored(spy, parquet_file(tmp_path / "in.parquet", table), tmp_path / "out.jsonl")
    faults = Faults()
    for at, value in enumerate(found):
        reference = spy.reference_row(table.slice(at, 1).to_pandas(maps_as_pydicts="strict"))
        faults.add(difference(got[at], reference, {"a": value, "row": at}, {}), type(value).__name__)
    faults.check()


def test_csv_without_a_signature_is_typed_as_pandas_does_in_every_interface(spies: SpyFolder, tmp_path: Path) -> None:
    spy = spies.signed("unsigned", None)
    text = "a,b,c,d,e\n1,2.5,x,true,10\n10,-0.0,naïve,False,9007199254740993\n-3,1e22,007,True,0\n"
    frame = pd.read_csv(io.StringIO(text))
    references = [spy.reference_row(frame.iloc[[at]]) for at in range(len(frame))]
    (tmp_path / "in.csv").write_text(text)
    sent = [{name: column[at] for name, column in frame.items()} for at in range(len(frame))]
    for answers in (requested(spy, text.encode(), CSV), scored(spy, tmp_path / "in.csv", tmp_path / "out.jsonl")):
        for answer, reference, row in zip(answers, references, sent, strict=True):
            assert difference(answer, reference, row, {}) is None


# --- what `predict` takes --------------------------------------------------------------------------------------------

FRAMES: dict[str, Any] = {
    **{d: pd.DataFrame({"a": pd.Series([1, 2], dtype=d)}) for d in ("int8", "int32", "uint8", "uint64", "float32")},
    "Int64": pd.DataFrame({"a": pd.Series([1, None], dtype="Int64")}),
    "Float64": pd.DataFrame({"a": pd.Series([1.5, None], dtype="Float64")}),
    "boolean": pd.DataFrame({"a": pd.Series([True, None], dtype="boolean")}),
    "string": pd.DataFrame({"a": pd.Series(["x", None], dtype="string")}),
    "object": pd.DataFrame({"a": pd.Series(["x", 1, None, 2**70, Decimal("1.5")], dtype=object)}),
    "category": pd.DataFrame({"a": pd.Series(["x", "y"], dtype="category")}),
    "zoned": pd.DataFrame({"a": pd.to_datetime(["2026-01-02T03:04:05"]).tz_localize("Europe/Berlin")}),
    "seconds": pd.DataFrame({"a": pd.to_datetime(["2026-01-02"]).astype("datetime64[s]")}),
    "durations": pd.DataFrame({"a": pd.to_timedelta([1, 2], unit="ns")}),
    "numpy scalars": pd.DataFrame({"a": pd.Series([np.int8(1), np.float32(0.1)], dtype=object)}),
    "cells": pd.DataFrame({"a": [np.array([1, 2], dtype="int8"), np.array([[1.5]])], "b": [{"x": 1}, [None]]}),
    "index": pd.DataFrame({"a": [1, 2]}, index=["x", "y"]),
    "unnamed columns": pd.DataFrame([[1, "x"]]),
    "no rows": pd.DataFrame({"a": []}),
    "arrow dtypes": pd.DataFrame({"a": pd.array([1, None], dtype=pd.ArrowDtype(pa.int64()))}),
    "array": np.array([[1.5, -0.0], [math.inf, math.nan]]),
    "array of text": np.array(["x", "y"]),
    "arrays by name": {"a": np.array([1, 2], dtype="int16"), "b": np.array(["x", "y"])},
    "list": [1, "x", None],
    "list of records": [{"a": 1}, {"a": 2}],
    "dict": {"a": [1, 2]},
    "dict of scalars": {"a": "x"},
    "series": pd.Series([1, 2], name="a"),
    "text": "x",
}
SIGNED = {
    "unsigned": None,
    "long": Schema([ColSpec("long", "a")]),
    "text": Schema([ColSpec("string", "a")]),
    "double": Schema([ColSpec("double", "a")]),
    "datetime": Schema([ColSpec("datetime", "a")]),
    "unnamed": Schema([ColSpec("long")]),
    "tensor": Schema([TensorSpec(np.dtype("float64"), (-1, 2))]),
}


@pytest.mark.parametrize("signature", SIGNED)
def test_predict_takes_and_gives_what_load_model_does(spies: SpyFolder, signature: str) -> None:
    spy = spies.signed(f"predict {signature}", SIGNED[signature])
    faults = Faults()
    for name, data in FRAMES.items():
        before = repr(data)
        reference, ours = spy.reference(data), spy.predicted(data)
        if isinstance(reference, Refused) != isinstance(ours, Refused) or (
            not isinstance(reference, Refused) and ours != reference
        ):
            faults.add(f"{ours}, not {reference}", name)
        faults.add(None if repr(data) == before else "the caller's object has changed", name, "changed")
    faults.check()
