"""Documents, arrays and Parquet bodies; and one decoder used for many requests."""

import io
import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likewise.core.errors import BadRequest, UnsupportedContentType
from likewise.core.items import Request, Row, Sent
from likewise.core.signature import Signature
from likewise.wire import Decoder, Form, decode, encode, parquet

PARQUET = "application/vnd.apache.parquet"


def signature(*inputs: dict[str, object], params: list[dict[str, object]] | None = None) -> Signature:
    raw = {"inputs": json.dumps([{"required": True, **entry} for entry in inputs])}
    return Signature.parse(raw | ({"params": json.dumps(params)} if params else {}))


TEXT = signature({"type": "string", "name": "text"})
TWO = signature({"type": "string", "name": "a"}, {"type": "long", "name": "b", "required": False})
BOTH = signature({"type": "string", "name": "a"}, {"type": "string", "name": "b"})
PROMPT = signature(
    {"type": "string", "name": "prompt"}, params=[{"name": "top", "type": "long", "default": 3, "shape": None}]
)
NO_SIGNATURE = Signature()


def body(value: object) -> bytes:
    return json.dumps(value).encode()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.permutations(["a", "b", "c"]), st.integers(1, 3), st.text(max_size=3) | st.integers()), max_size=6
    )
)
def test_a_decoder_keeps_no_state_between_requests(seen: list[tuple[list[str], int, Any]]) -> None:
    decoder = Decoder(TWO)
    for names, count, value in seen:
        raw = body({"dataframe_split": {"columns": names[:count], "data": [[value] * count]}})
        assert outcome(lambda raw=raw: decoder(raw, None)) == outcome(lambda raw=raw: decode(raw, None, TWO))


def outcome(call: Any) -> Any:
    try:
        return call()
    except BadRequest as error:
        return error.cause


def test_a_decoder_caches_a_bounded_number_of_column_orders() -> None:
    decoder = Decoder(TWO)
    for at in range(500):
        decoder(body({"dataframe_records": [{"a": "x", f"more {at}": 1}]}), None)
        decoder(body({"dataframe_records": [{"a": "x", "b": at}]}), None)
    assert len(decoder._fit._plans) == 1


def test_a_decoder_is_thread_safe() -> None:
    decoder, wrong = Decoder(TWO), []

    def decode_many(columns: list[str]) -> None:
        for at in range(300):
            sent = {"a": str(at), "b": at}
            call = decoder(body({"dataframe_split": {"columns": columns, "data": [[sent[c] for c in columns]]}}), None)
            if list(call.table.rows) != [(str(at), at)]:
                wrong.append(call)

    threads = [threading.Thread(target=decode_many, args=(columns,)) for columns in (["a", "b"], ["b", "a"]) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_document_of_plain_values_is_a_row_with_params() -> None:
    call = decode(body({"prompt": "hi", "top": 5, "more": None}), None, PROMPT)
    assert (call.table.columns, list(call.table.rows), call.table.sent) == (("prompt",), [("hi",)], None)
    assert (call.params, call.form) == ({"top": 5}, Form.DOCUMENT)
    assert encode(call.form, ["x"]) == b'["x"]'


@pytest.mark.parametrize("key", ["messages", "prompt", "input"])
def test_a_document_reaches_the_model_unchanged(key: str) -> None:
    sent = {key: [{"role": "user"}], "n": 1, "inputs": [1]}
    call = decode(body(sent), None, NO_SIGNATURE)
    assert call.table.sent == Sent("document", sent)
    assert call.items(True) == call.items(False) == [Request(call.table, {})]


def test_a_document_without_a_required_column_is_rejected() -> None:
    with pytest.raises(BadRequest, match="the column 'text' is missing"):
        decode(body({"messages": []}), None, TEXT)
    with pytest.raises(BadRequest, match=r"params\.top"):
        decode(body({"prompt": "hi", "top": "many"}), None, PROMPT)


@pytest.mark.parametrize("form", [b'{"inputs": []}', b'{"instances": []}', b"[]"])
def test_a_request_without_rows_for_several_columns_is_answered_with_what_to_send(form: bytes) -> None:
    with pytest.raises(BadRequest, match="there are no rows, and no column names") as refused:
        decode(form, None, BOTH)
    assert '{"dataframe_records": [{"a": …, "b": …}]}' in refused.value.remedy


def test_without_a_signature_the_model_gets_the_original_value() -> None:
    for value in ({"a": [1, 2], "b": [3]}, {"a": 5}, [{"a": 1}, {"b": 2}], 5, None):
        assert decode(body({"inputs": value}), None, NO_SIGNATURE).table.sent == Sent("inputs", value)
    assert decode(body({"inputs": [[1], [2]]}), None, NO_SIGNATURE).table.sent is None


def test_items_are_rows_only_for_row_wise_models() -> None:
    call = decode(body({"inputs": ["a", "b"]}), None, TEXT)
    assert call.items(True) == [Row(("text",), ("a",)), Row(("text",), ("b",))]
    assert call.items(False) == [Request(call.table)]
    assert (call.by_row(True), call.by_row(False)) == (True, False)


def test_named_tensors_may_differ_in_their_first_dimension() -> None:
    spec = {"dtype": "int64", "shape": [-1, 2]}
    named = [{"type": "tensor", "name": n, "tensor-spec": spec} for n in ("m", "n")]
    call = decode(body({"inputs": {"n": [[1, 2]], "m": [[1, 2], [3, 4.0]], "x": [1]}}), None, signature(*named))
    assert call.table.sent == Sent("inputs", {"m": [[1, 2], [3, 4]], "n": [[1, 2]]})
    for wrong in ({"n": [[1, 2]], "m": [[1, 2], [3]]}, {"n": [[1, 2]], "m": [[1.5, 2], [3, 4]]}):
        with pytest.raises(BadRequest, match=r"row [01], the tensor"):
            decode(body({"inputs": wrong}), None, signature(*named))


def parquet_file(**columns: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, compression="zstd")
    return stream.getvalue()


VIEWS: dict[str, tuple[Any, list[Any]]] = {
    "text": (pa.string_view(), ["a", None]),
    "bytes": (pa.binary_view(), [b"\xff", None]),
    "large text": (pa.large_string(), ["a", None]),
    "large bytes": (pa.large_binary(), [b"\xff", None]),
    "list": (pa.list_(pa.string_view()), [["a", "b"], None]),
    "large list": (pa.large_list(pa.large_string()), [["a", "b"], None]),
    "list view": (pa.list_view(pa.string()), [["a", "b"], None]),
    "list view of views": (pa.large_list_view(pa.list_view(pa.binary_view())), [[[b"a"], []], None]),
    "record": (pa.struct([("x", pa.string_view())]), [{"x": "a"}, None]),
    "dictionary": (pa.dictionary(pa.int32(), pa.large_string()), ["a", None]),
}


@pytest.mark.parametrize("case", VIEWS)
def test_parquet_may_have_views_and_large_types_and_several_row_groups(case: str) -> None:
    kind, values = VIEWS[case]
    stream = io.BytesIO()
    with pq.ParquetWriter(stream, schema := pa.schema([("a", kind)])) as file:
        for _ in range(3):
            file.write_table(pa.table([pa.array(values, kind)], schema=schema))
    assert [row[0] for row in decode(stream.getvalue(), PARQUET, NO_SIGNATURE).table.rows] == values * 3


def test_parquet_values_keep_their_types() -> None:
    nested = [{"x": [1, 2], "y": "s"}, None]
    table = decode(parquet_file(text=["a", None], nested=nested), PARQUET, NO_SIGNATURE).table
    assert (table.columns, list(table.rows)) == (("text", "nested"), [("a", nested[0]), (None, None)])
    with pytest.raises(BadRequest, match="the Parquet body, row 1, column 'b': expected a whole number"):
        decode(parquet_file(a=["x", "y"], b=[1.0, 1.5]), PARQUET, TWO)
    with pytest.raises(BadRequest, match="'text' is missing"):
        decode(parquet_file(txet=["a"]), PARQUET, TEXT)


SHARED = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * 100_000]))
BOMBS = {
    "nulls": lambda: parquet_file(a=pa.nulls(9_000_000)),
    "one text, many times": lambda: parquet_file(a=SHARED),
    "in a list": lambda: parquet_file(a=pa.ListArray.from_arrays(pa.array([0, 100_000], pa.int32()), SHARED)),
    "in a record": lambda: parquet_file(a=pa.StructArray.from_arrays([SHARED], ["s"])),
    "one list": lambda: parquet_file(
        a=pa.ListArray.from_arrays(pa.array([0, 9_000_000], pa.int32()), pa.nulls(9_000_000, pa.int8()))
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_parquet_bomb_is_rejected(bomb: str) -> None:
    raw = BOMBS[bomb]()
    assert len(raw) < 100_000
    with pytest.raises(BadRequest, match=r"decompresses to \d+ MiB; the limit is 64 MiB"):
        decode(raw, PARQUET, NO_SIGNATURE)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA does not limit mappings on other systems")
def test_a_parquet_file_with_a_false_size_cannot_exhaust_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "LIMIT_BYTES", 2**60)  # as if the footer declared a small size
    monkeypatch.setattr(parquet, "MEMORY_BYTES", 2**28)
    with pytest.raises(BadRequest, match="ArrowMemoryError"):
        decode(parquet_file(a=np.zeros(40_000_000)), PARQUET, NO_SIGNATURE)


@pytest.mark.parametrize("raw", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b'{"inputs": []}'])
def test_invalid_parquet_is_a_bad_request(raw: bytes) -> None:
    with pytest.raises(BadRequest, match="not a readable Parquet file"):
        decode(raw, PARQUET, NO_SIGNATURE)


def test_a_parquet_file_that_crashes_its_reader_process_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Arrow does if a footer's level histograms do not match its schema."""
    child = tmp_path / "child.py"
    child.write_text("import os\nos.abort()\n")
    monkeypatch.setattr(parquet, "_CHILD_SCRIPT", child)
    with pytest.raises(BadRequest, match="not a readable Parquet file"):
        decode(parquet_file(a=[1]), PARQUET, NO_SIGNATURE)


def test_an_unsupported_content_type_is_rejected_each_time() -> None:
    for _ in range(2):
        with pytest.raises(UnsupportedContentType):
            decode(b"{}", "text/plain", NO_SIGNATURE)
