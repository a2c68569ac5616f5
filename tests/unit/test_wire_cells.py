"""The limit of cells: small bodies that describe huge tables are rejected before these are built."""

import csv
import io
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.container.forms import LineDecoder
from likewise.core.errors import BadRequest, ModelFailed, TooManyCells
from likewise.core.signature import Signature
from likewise.wire import Cells, Decoder, Form, encode
from likewise.wire.jsontext import nearest, parse_json
from likewise.wire.oip import decode_infer, encode_infer

LIMIT = 50_000
NONE = Signature()
TEXT = Signature.parse({"inputs": json.dumps([{"type": "string", "name": "text", "required": True}])})
JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"


def dumped(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def different(rows: int, **more: object) -> list[dict[str, object]]:
    return [{**more, f"k{row}": 1} for row in range(rows)]


def tensor(rows: int, **more: object) -> bytes:
    return dumped({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [rows], **more}]})


SPARSE: dict[str, Callable[[int], bytes]] = {
    "dataframe_records": lambda rows: dumped({"dataframe_records": different(rows, text="a")}),
    "instances": lambda rows: dumped({"instances": different(rows, text="a")}),
    "inputs": lambda rows: dumped({"inputs": different(rows, text="a")}),
    "a bare list": lambda rows: dumped(different(rows, text="a")),
    "dataframe_split": lambda rows: dumped(
        {"dataframe_split": {"columns": ["text", *(f"k{n}" for n in range(rows))], "data": different(rows)}}
    ),
    "one value for all rows": lambda rows: dumped(
        {"inputs": {"text": ["a"] * rows, **{f"k{n}": 1 for n in range(rows)}}}
    ),
    "a quoted document": lambda rows: dumped(dumped({f"k{n}": {str(n): 1} for n in range(rows)}).decode()),
}


@pytest.mark.parametrize("name", SPARSE)
def test_a_table_that_is_mostly_empty_is_rejected_before_it_is_built(name: str) -> None:
    body = SPARSE[name](20_000)
    tracemalloc.start()
    try:
        with pytest.raises(TooManyCells, match=r"20,00\d columns: 400,\d\d\d,\d\d\d cells"):
            Decoder(TEXT, cells=Cells())(body, JSON)
        assert tracemalloc.get_traced_memory()[1] < 40 * len(body)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", SPARSE)
def test_a_small_table_may_be_mostly_empty(name: str) -> None:
    assert len(Decoder(NONE, cells=Cells(LIMIT))(SPARSE[name](100), JSON).table) in (1, 100)


def test_lines_of_a_batch_transform_job_are_counted_too() -> None:
    body = b"\n".join(map(dumped, different(20_000)))
    with pytest.raises(TooManyCells):
        LineDecoder(NONE)(body, "application/jsonlines")
    with pytest.raises(TooManyCells, match=r"50,002 cells; the limit is 50,000"):
        LineDecoder(NONE, Cells(LIMIT))(b"[" + b"1," * LIMIT + b"1]", "application/jsonlines")


TOO_MANY: dict[str, tuple[bytes, str]] = {
    "rows": (dumped({"inputs": ["a"] * LIMIT}), JSON),
    "nested lists": (dumped({"inputs": [[]] * (LIMIT // 2)}), JSON),
    "keys": (dumped({f"k{n}": 1 for n in range(LIMIT)}), JSON),
    "a quoted document": (dumped(dumped([{}] * (LIMIT // 2)).decode()), JSON),
    "CSV with blank lines": (b"text\n" + b"\n" * LIMIT, CSV),
    "CSV with one line": (b"text" + b"," * LIMIT, CSV),
}


@pytest.mark.parametrize("name", TOO_MANY)
def test_a_request_with_more_cells_than_the_limit_is_rejected_with_their_number(name: str) -> None:
    body, media = TOO_MANY[name]
    with pytest.raises(TooManyCells, match=r" has 50,\d\d\d cells; the limit is 50,000\n"):
        Decoder(TEXT, cells=Cells(LIMIT))(body, media)


def test_tensors_are_counted_by_their_shapes() -> None:
    cells = Cells(LIMIT)
    for more in ({"parameters": {"binary_data_size": 4 * (LIMIT + 1)}}, {"data": ["a"]}):
        with pytest.raises(TooManyCells, match="inputs has 50,001 cells"):
            decode_infer(tensor(LIMIT + 1, **more), None, TEXT, cells)
    of = Signature.parse({"inputs": json.dumps([{"type": "array", "items": {"type": "long"}, "name": "text"}])})
    lists = "[" + "1," * LIMIT + "1]"
    with pytest.raises(TooManyCells):
        decode_infer(tensor(1, data=[lists]), None, of, cells)
    with pytest.raises(TooManyCells):
        Decoder(of, cells=cells)(f'text\n"{lists}"\n'.encode(), CSV)


def test_parquet_is_counted_by_its_footer() -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": ["a"] * (LIMIT + 1)}), file)
    assert len(file.getvalue()) < 2000
    with pytest.raises(TooManyCells, match="the Parquet body has 50,001 cells"):
        Decoder(TEXT, cells=Cells(LIMIT))(file.getvalue(), PARQUET)


def test_predictions_with_different_keys_are_not_made_a_table() -> None:
    call = decode_infer(tensor(1, data=["a"]), None, TEXT)
    few, many = ([{f"k{row}": 1} for row in range(rows)] for rows in (100, 20_000))
    assert encode_infer(call, few, NONE, model_name="m", model_version=None)[0]
    with pytest.raises(ModelFailed, match="400,000,000 cells"):
        encode_infer(call, many, NONE, model_name="m", model_version=None)


@pytest.mark.parametrize("decode", [Decoder(NONE), LineDecoder(NONE)])
@pytest.mark.parametrize("first", ["a", "1", '""'])
def test_the_first_field_of_a_csv_may_be_large(decode: Decoder, first: str) -> None:
    field = first * 200_000
    (row,) = decode(f'"{field}",2\n'.encode(), "text/csv; header=absent").table.rows
    assert len(str(row[0])) in (len(field), len(field) // 2) or first == "1"


def test_params_count_in_every_row() -> None:
    params = [{"name": "stop", "type": "string", "default": None, "shape": [-1]}]
    of = Signature.parse({"inputs": json.dumps([{"type": "string", "name": "text"}]), "params": json.dumps(params)})
    body = dumped({"inputs": ["a"] * 1000, "params": {"stop": ["word"] * 1000}})
    assert len(Decoder(of, cells=Cells(10**6))(body, JSON).table) == 1000
    with pytest.raises(TooManyCells, match="each row with all params has 80,000 cells"):
        Decoder(of, cells=Cells(LIMIT))(body, JSON)


JSON_VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(alphabet='a,[{"\\:é', max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='a,"\\', max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


def values_in(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(values_in, inside))


@given(JSON_VALUES)
def test_at_least_as_many_values_are_counted_as_json_has_and_commas_in_texts_are_not(value: object) -> None:
    raw, values = dumped(value), values_in(value)
    Cells(2 * values).json(raw)  # an empty list counts twice: its own bracket, and the value that may follow
    if values > 1:
        with pytest.raises(TooManyCells):
            Cells(values - 1).json(raw)


@given(st.lists(st.lists(st.text(alphabet='a,"\n', max_size=4), min_size=2, max_size=3), min_size=1, max_size=5))
def test_fields_of_a_csv_are_counted_as_it_is_parsed(rows: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    fields = sum(map(len, rows))
    Cells(fields + 1).csv(text.getvalue(), "it")  # the end of the last line counts as the start of a field
    with pytest.raises(TooManyCells):
        Cells(fields - 1).csv(text.getvalue(), "it")


def test_a_text_that_spans_pieces_is_one_value() -> None:
    raw = dumped(["," * 3_000_000, '\\"' * 1_000_000, 1])
    Cells(5).json(raw)
    with pytest.raises(TooManyCells, match="has 4 cells"):
        Cells(3).json(raw)


def test_a_similar_name_is_looked_for_in_a_bounded_number_of_names() -> None:
    started = time.perf_counter()
    assert nearest("text", (f"tex{n:07d}" for n in range(10**9))) is None
    assert nearest("text" * 10**6, ["text"]) is None
    names = ["Text", *(f"name{n}" for n in range(200_000))]
    with pytest.raises(BadRequest, match="is missing") as error:
        Decoder(TEXT)(dumped({"dataframe_split": {"columns": names, "data": []}}), JSON)
    with pytest.raises(BadRequest, match="has none of"):
        Decoder(TEXT)(dumped({f"input{n}": 1 for n in range(100_000)}), JSON)
    assert "rename 'Text'" in error.value.remedy
    assert time.perf_counter() - started < 5  # minutes if all are compared


def test_names_in_messages_are_shortened() -> None:
    long = "x" * 100_000
    for body in (
        {"dataframe_split": {"columns": [long, long], "data": []}},
        {long: 1},
        {"dataframe_records": [{long: 1}]},
    ):
        with pytest.raises(BadRequest) as error:
            Decoder(TEXT)(dumped(body), JSON)
        assert len(error.value.cause) < 1000


@pytest.mark.parametrize("form", [Form.MLFLOW, Form.LEGACY])
@pytest.mark.parametrize("value", [1.5, "é", {"a": [None]}, 2**70, float("nan")])
def test_many_predictions_are_encoded_like_few(form: Form, value: object) -> None:
    (one,) = json.loads(encode(Form.LEGACY, [value]))
    found = json.loads(encode(form, [value] * 2500))
    assert (found["predictions"] if form is Form.MLFLOW else found) == [one] * 2500


def test_python_literals_are_read_next_to_escaped_surrogates() -> None:
    assert parse_json('[NaN, "\\ud83d\\ude00"]') == [None, "😀"]
    with pytest.raises(BadRequest):
        parse_json('[NaN, "\\ud83d"]')
