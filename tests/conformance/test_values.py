"""One value through every interface: the model gets what plain MLflow hands to it, or the row is refused.

The model is a spy (tests/support/spy_model.py), which describes the values and types that it gets. The reference is
`mlflow.pyfunc.load_model(…).predict(…)` with a data frame of this one row; `difference` decides which are right. Values
are random, with those weighted at which types differ. A row must also be the same alone and among other rows.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.spy import (
    UNFIT,
    Faults,
    Refused,
    Row,
    Spy,
    SpyFolder,
    content_of,
    difference,
    field_of,
    fields,
    normal,
)
from tests.support.spy_sources import (
    FORMS,
    JSON,
    InexpressibleError,
    csv_cell,
    json_value,
    parquet_file,
    posted,
    posted_parquet,
    scored,
    serving,
)
from tests.support.spy_values import (
    ALONE,
    COLUMNS,
    FIELD,
    GENERATED,
    JSON_VALUES,
    KINDS,
    SCHEMAS,
    SOURCES,
    WIDE,
    FieldSpec,
    Specs,
    arrow_array,
    arrow_type,
    arrow_values,
    frame,
    kinds_of,
    lossless,
    natural,
    one_column,
    pandas_row,
    pool,
    specs_of,
    with_all_properties,
)

from likewise.core.errors import BadRequest
from likewise.core.fields import ABSENT
from likewise.core.items import Item
from likewise.wire import Decoder


@st.composite
def row_lists(draw: st.DrawFn, specs: Specs) -> list[dict[Any, Any]]:
    """One to three rows of the same fields, without some of those that are optional."""
    names = [name for name, spec in specs.items() if spec.get("required", True) or draw(st.booleans())]
    names = names or list(specs)[:1]
    row = st.tuples(*(natural(specs[name]) for name in names)).map(lambda values: dict(zip(names, values, strict=True)))
    return draw(st.lists(row, min_size=1, max_size=3))


def exact(specs: Specs, row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}


def by_position(row: Row | Refused, specs: Specs) -> Row | Refused:
    """The row with its fields named by their position, as the reference has them, if the signature has no names."""
    if isinstance(row, Refused) or not all(isinstance(name, int) for name in specs):
        return row
    ((shape, listed),) = ((key, value) for key, value in row.items() if key != "params")
    return {shape: [[at, *field[1:]] for at, field in enumerate(listed)]}


def same(one: Row | Refused, other: Row | Refused, kinds: Mapping[str, str]) -> bool:
    """Whether two answers to the same row are equal."""
    if isinstance(one, Refused) or isinstance(other, Refused):
        return isinstance(one, Refused) and isinstance(other, Refused)
    return [(n, normal(kinds.get(n, ""), d, cell)) for n, d, cell in fields(one)] == [
        (n, normal(kinds.get(n, ""), d, cell)) for n, d, cell in fields(other)
    ]


# --- the comparison --------------------------------------------------------------------------------------------------

SAMPLE: dict[str, Any] = {
    "text": "a\0", "number": 2**53 + 1, "weight": -0.0, "flag": True, "at": None, "raw": b"a\0", "items": [1, 2],
}  # fmt: skip
SAMPLE_ROW: Row = {
    "frame": [
        ["text", "str", ["str", "a\0"]],
        ["number", "int64", ["numpy.int64", str(2**53 + 1)]],
        ["weight", "float64", ["numpy.float64", "-0x0.0p+0"]],
        ["flag", "bool", ["numpy.bool", "True"]],
        ["at", "datetime64[ns]", ["NaTType"]],
        ["raw", "object", ["bytes", "6100"]],
        ["items", "object", ["list", [["int", "1"], ["int", "2"]]]],
    ]
}
SAMPLE_KINDS = {
    "text": "string", "number": "long", "weight": "double", "flag": "boolean", "at": "datetime", "raw": "binary",
    "items": "array",
}  # fmt: skip
LOSSES: dict[str, tuple[int, list[Any]]] = {
    "a shorter text": (0, ["str", ["str", "a"]]),
    "another number": (1, ["int64", ["numpy.int64", str(2**53)]]),
    "a float for an integer": (1, ["float64", ["numpy.float64", float(2**53).hex()]]),
    "another width": (1, ["int32", ["numpy.int32", str(2**53 + 1)]]),
    "a zero without its sign": (2, ["float64", ["numpy.float64", "0x0.0p+0"]]),
    "a number for a truth": (3, ["int64", ["numpy.int64", "1"]]),
    "the same truth in an object column": (3, ["object", ["bool", "True"]]),
    "None for NaT": (4, ["object", ["NoneType"]]),
    "shorter bytes": (5, ["object", ["bytes", "61"]]),
    "an array for a list": (6, ["object", ["ndarray", "int64", [2], [["numpy.int64", "1"], ["numpy.int64", "2"]]]]),
    "elements of another type": (6, ["object", ["list", [["float", "0x1.0p+0"], ["int", "2"]]]]),
}


def test_the_comparison_takes_an_equal_row() -> None:
    assert difference(copy.deepcopy(SAMPLE_ROW), SAMPLE_ROW, SAMPLE, SAMPLE_KINDS) is None


@pytest.mark.parametrize("loss", LOSSES)
def test_the_comparison_catches_a_lossy_interface(loss: str) -> None:
    at, lossy = LOSSES[loss]
    row = copy.deepcopy(SAMPLE_ROW)
    row["frame"][at] = [row["frame"][at][0], *lossy]
    assert difference(row, SAMPLE_ROW, SAMPLE, SAMPLE_KINDS)


def test_the_comparison_catches_missing_and_moved_fields_and_refusals() -> None:
    shorter = {"frame": SAMPLE_ROW["frame"][:-1]}
    moved = {"frame": SAMPLE_ROW["frame"][::-1]}
    for row in (shorter, moved, Refused("row 0, column 'text': no")):
        assert difference(row, SAMPLE_ROW, SAMPLE, SAMPLE_KINDS)
    assert difference(Refused("column 'text': no"), SAMPLE_ROW, SAMPLE, SAMPLE_KINDS, refusable=True) is None
    assert difference(Refused("no"), SAMPLE_ROW, SAMPLE, SAMPLE_KINDS, refusable=True, named="text")
    assert difference(SAMPLE_ROW, SAMPLE_ROW, {**SAMPLE, "number": UNFIT}, SAMPLE_KINDS)


def test_where_the_reference_changes_a_value_only_the_exact_one_is_right() -> None:
    changed = copy.deepcopy(SAMPLE_ROW)
    changed["frame"][0][2] = ["str", "a"]
    assert difference(SAMPLE_ROW, changed, SAMPLE, SAMPLE_KINDS) is None
    assert difference(changed, changed, SAMPLE, SAMPLE_KINDS)
    assert difference(Refused("column 'text'"), changed, SAMPLE, SAMPLE_KINDS, named="text") is None


# --- requests --------------------------------------------------------------------------------------------------------


def answers(spy: Spy, form: str, specs: Specs, rows: Sequence[Mapping[Any, Any]]) -> list[Row | Refused] | None:
    """What the spy gets from one request with these rows; None if the form cannot have them."""
    try:
        call = FORMS[form].call(spy.signature, specs, rows)
    except InexpressibleError:
        return None
    except BadRequest as error:
        return [Refused(error.cause)] * len(rows)
    return [by_position(row, specs) for row in spy.called(call)]


def items_of(spy: Spy, form: str, specs: Specs, row: Mapping[Any, Any]) -> list[Item]:
    call = FORMS[form].call(spy.signature, specs, [row])
    return call.items(True) if call.by_row(True) else []


@pytest.mark.parametrize("name", SCHEMAS)
def test_requests_hand_on_what_plain_mlflow_does(spies: SpyFolder, name: str) -> None:
    specs = specs_of(SCHEMAS[name])
    spy, kinds = spies.signed(name, SCHEMAS[name]), kinds_of(specs)
    has_arrays = any(spec["type"] == "array" for spec in specs.values())
    faults, taken = Faults(), set()

    @settings(GENERATED, max_examples=12 if name in WIDE else 5)
    @given(row_lists(specs))
    def check(rows: list[dict[Any, Any]]) -> None:
        references = {
            (arrays, at): spy.reference_row(frame(specs, row, arrays=arrays))
            for at, row in enumerate(rows)
            for arrays in ((False, True) if has_arrays else (False,))
        }
        alone: dict[tuple[str, int], Row] = {}
        items: dict[tuple[str, int], Item] = {}
        for form, (at, row) in itertools.product(FORMS, enumerate(rows)):
            got = answers(spy, form, specs, [row])
            if got is None:
                continue
            (answer,) = got
            fault = difference(answer, references[has_arrays and FORMS[form].arrays, at], exact(specs, row), kinds)
            faults.add(fault, form, field_of(fault))
            if not isinstance(answer, Refused):
                taken.add(form)
                alone[form, at] = answer
                items.update(((form, at), item) for item in items_of(spy, form, specs, row))
        in_company(alone, items)
        for form in FORMS:
            if all((form, at) in alone for at in range(len(rows))):
                for at, answer in enumerate(answers(spy, form, specs, rows) or []):
                    shown = f"{alone[form, at]} alone, but {answer} among other rows"
                    faults.add(None if same(answer, alone[form, at], kinds) else shown, form, "company")

    def in_company(alone: Mapping[tuple[str, int], Row], items: Mapping[tuple[str, int], Item]) -> None:
        """All requests at once, as the service merges them."""
        shuffled = random.Random(len(items)).sample(list(items), len(items))
        for key, answer in zip(shuffled, spy.run([items[key] for key in shuffled]), strict=True):
            got = by_position(answer, specs)
            shown = f"{alone[key]} alone, but {got} among other requests"
            faults.add(None if same(got, alone[key], kinds) else shown, key[0], "other requests")

    check()
    faults.check()
    assert name in ALONE or len(taken) > len(FORMS) / 2, "most forms have refused every row"


@pytest.mark.parametrize("kind", [*KINDS, "array of long", "array of string", "map", "object"])
def test_json_values_that_do_not_fit_are_refused_or_exact(spies: SpyFolder, kind: str) -> None:
    schema = one_column(kind)
    (spec,) = specs_of(schema).values()
    spy = spies.signed(kind, schema)
    fits = {"long": 1, "integer": 1, "string": "a", "datetime": "2026-01-02", "binary": "", "boolean": True}
    nested = {"array": [], "map": {}, "object": {"n": 1}}
    faults = Faults()
    good = {**fits, **nested}.get(spec["type"], 1.0)

    @settings(GENERATED, max_examples=40)
    @given(JSON_VALUES | natural(spec).map(json_value))
    def check(value: Any) -> None:
        fitted = lossless(spec, value, text=True) if spec["type"] != "binary" else UNFIT
        if spec["type"] == "binary" and (isinstance(value, str) or value is None):
            return  # any text may be base64; natural values are in the other test
        for form in ("dataframe_split", "dataframe_records", "inputs", "instances"):
            known = frame({FIELD: spec}, {FIELD: fitted}, arrays=FORMS[form].arrays) if fitted is not UNFIT else None
            reference = Refused("") if known is None else spy.reference_row(known)
            rows = [[good], [value]] if form == "dataframe_split" else [{FIELD: good}, {FIELD: value}]
            body = {form: {"columns": [FIELD], "data": rows} if form == "dataframe_split" else rows}
            verify(form, json.dumps(body).encode(), JSON, value, fitted, reference)

    def verify(form: str, body: bytes, media: str, value: Any, fitted: Any, reference: Row | Refused) -> None:
        try:
            answer = spy.called(Decoder(spy.signature)(body, media))[1]
        except BadRequest as error:
            answer = Refused(error.cause)
            faults.add(None if "row 1" in error.cause else f"the refusal does not name the row: {error.cause}", form)
        kinds, refusable = kinds_of({FIELD: spec}), not is_natural(spec, value)
        fault = difference(answer, reference, {FIELD: fitted}, kinds, refusable=refusable, named=FIELD)
        faults.add(f"{value!r}: {fault}" if fault else None, form, field_of(fault), type(value).__name__)

    check()
    faults.check()


# --- the web service -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in WIDE if name != "anything"])
def test_the_web_service_hands_on_the_same(spies: SpyFolder, name: str) -> None:
    """Decoded requests and the engine are tested above: here they are behind HTTP, together with Parquet."""
    specs = specs_of(SCHEMAS[name])
    spy, kinds = spies.signed(name, SCHEMAS[name]), kinds_of(specs)
    found = pool(st.fixed_dictionaries({key: natural(spec) for key, spec in specs.items()}), 6)
    rows = [{key: with_all_properties(specs[key], row[key]) for key in specs} for row in found]
    faults = Faults()
    with serving(spy) as client:
        for form, one in itertools.product(FORMS, rows):
            if FORMS[form].decoder == "container":
                continue
            try:
                got = posted(client, FORMS[form], specs, [one])
            except InexpressibleError:
                continue
            (known,) = answers(spy, form, specs, [one]) or []
            answer = got if isinstance(got, Refused) else by_position(got[0], specs)
            faults.add(None if same(answer, known, kinds) else f"{answer}, but {known} without HTTP", form)
        columns = [arrow_array([row[key] for row in rows], arrow_type(spec)) for key, spec in specs.items()]
        table = pa.table(dict(zip([f"{key}" for key in specs], columns, strict=True)))
        read = table.to_pandas(maps_as_pydicts="strict")
        taken = [at for at in range(len(rows)) if not isinstance(spy.reference(read.iloc[[at]]), Refused)]
        answered = posted_parquet(client, table.take(taken))
        assert not isinstance(answered, Refused), answered
        for at, answer in zip(taken, answered, strict=True):
            reference = spy.reference_row(table.slice(at, 1).to_pandas(maps_as_pydicts="strict"))
            exactly = exact(dict.fromkeys(specs), rows[at])
            found_fault = difference(by_position(answer, specs), by_position(reference, specs), exactly, kinds)
            faults.add(found_fault, "Parquet", field_of(found_fault))
    faults.check()


# --- files -----------------------------------------------------------------------------------------------------------

PAIRS = [(kind, source) for kind in SOURCES for source in SOURCES[kind]]


def check_column(spy: Spy, spec: Mapping[str, Any], column: Any, values: list[Any], got: list[Any]) -> None:
    """Fail unless each value of a typed column is what plain MLflow gets for it alone, or is refused with its name."""
    faults = Faults()
    for at, (value, answer) in enumerate(zip(values, got, strict=True)):
        fitted = lossless(spec, value, text=False)
        reference = spy.reference_row(pandas_row(column.slice(at, 1)))
        found = difference(answer, reference, {FIELD: fitted}, kinds_of({FIELD: spec}), named=FIELD)
        faults.add(f"{value!r}: {found}" if found else None, field_of(found), type(value).__name__)
    faults.check()


@pytest.mark.parametrize(("kind", "source"), PAIRS, ids=str)
def test_parquet_columns_of_other_types_are_exact_or_refused(
    spies: SpyFolder, tmp_path: Path, kind: str, source: pa.DataType
) -> None:
    schema = one_column(kind, required=False)
    (spec,) = specs_of(schema).values()
    spy = spies.signed(f"optional {kind}", schema)
    values = [None, *pool(arrow_values(source), 8)]
    column = arrow_array(values, source)
    got = scored(spy, parquet_file(tmp_path / "in.parquet", pa.table({FIELD: column})), tmp_path / "out.jsonl")
    assert len(got) == len(values)
    check_column(spy, spec, column, values, got)


@pytest.mark.parametrize("required", [True, False], ids=["required", "optional"])
@pytest.mark.parametrize("kind", [kind for kind in COLUMNS if "any" not in kind])
def test_parquet_columns_of_the_signatures_type_are_what_plain_mlflow_gets(
    spies: SpyFolder, tmp_path: Path, kind: str, required: bool
) -> None:
    schema = one_column(kind, required=required)
    (spec,) = specs_of(schema).values()
    spy = spies.signed(f"{'' if required else 'optional '}{kind}", schema)
    values = [None, *(with_all_properties(spec, value) for value in pool(natural(spec), 8))]
    column = arrow_array(values, arrow_type(spec))
    got = scored(spy, parquet_file(tmp_path / "in.parquet", pa.table({FIELD: column})), tmp_path / "out.jsonl")
    check_column(spy, spec, column, values, got)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_text_files_are_what_plain_mlflow_gets_or_refused(
    spies: SpyFolder, tmp_path: Path, kind: str, suffix: str
) -> None:
    schema = one_column(kind, required=False)
    (spec,) = specs_of(schema).values()
    spy = spies.signed(f"optional {kind}", schema)
    written: list[tuple[Any, str]] = []  # a value of the field, or of JSON, and its line
    for value in [*pool(natural(spec), 12), *(pool(JSON_VALUES, 30) if kind in KINDS else ())]:
        try:
            line = csv_cell(spec, value) if suffix == "csv" else json.dumps({FIELD: json_value(value)})
        except InexpressibleError:
            continue
        written.append((value, line))
    source = tmp_path / f"in.{suffix}"
    quoted = ['"' + line.replace('"', '""') + '"' if suffix == "csv" else line for _, line in written]
    source.write_text("\n".join([f'"{FIELD}"'] * (suffix == "csv") + quoted) + "\n", newline="")
    got = scored(spy, source, tmp_path / "out.jsonl")
    faults = Faults()
    for (value, line), answer in zip(written, got, strict=True):
        sent = cell_value(spec, line) if suffix == "csv" and kind in KINDS else value
        fitted = lossless(spec, value if is_natural(spec, value) else sent, text=True)
        if spec["type"] in ("binary", "datetime") and not is_natural(spec, value) and not isinstance(value, list):
            continue  # any text may be base64, and a number may be a year
        reference = Refused("") if fitted is UNFIT else spy.reference_row(frame({FIELD: spec}, {FIELD: fitted}))
        found = difference(
            answer,
            reference,
            {FIELD: fitted},
            kinds_of({FIELD: spec}),
            refusable=not is_natural(spec, value),
            named=FIELD,
        )
        faults.add(f"{line[:80]!r}: {found}" if found else None, field_of(found), type(value).__name__)
    faults.check()


def cell_value(spec: FieldSpec, text: str) -> Any:
    """A CSV field as the column's type reads it: text, null, or nested values as JSON."""
    return None if spec["type"] != "string" and text.strip().lower() in ABSENT else text


def is_natural(spec: FieldSpec, value: Any) -> bool:
    """Whether the value has the type of the field, so that it must be taken."""
    fitted = lossless(spec, value, text=False)
    return fitted is not UNFIT and type(fitted) is type(value) and content_of(fitted) == content_of(value)
