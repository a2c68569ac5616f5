"""Captured requests: values are read as they were served, and the folder keeps its bounds."""

import asyncio
import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.model_server import MODELS, column, signature, tensor

from likewise.core.casts import Nanoseconds
from likewise.core.errors import InputInvalid, OutputRefused, RowRefused, WrongUsage
from likewise.core.items import ARRAYS, Request, Row, Table
from likewise.core.results import Failed, Ok, Result
from likewise.core.signature import Signature
from likewise.core.tagged_json import decode, encode
from likewise.parity.captured import captured_set
from likewise.parity.golden import Golden, content
from likewise.parity.verify_options import VerifyOptions
from likewise.server import ServerOptions
from likewise.server.capture import Capture
from likewise.server.capture.columns import Answer, Columns, Sample, records_of
from likewise.server.capture.folder import CaptureFolder
from likewise.targets.ray.ray_options import RayOptions
from likewise.wire import DecodedRequest, Decoder

ANSWER = Answer("r-1", "/invocations", 200, 0.25, "", "upper/none", 1_800_000_000.5)
TEXT = signature([column("text", "string")], None)
OPEN = Signature()
CHAT = signature([column("messages", "array", items={"type": "map", "values": {"type": "string"}})], None)
HOURS = signature([column("at", "datetime"), column("list", "array", items={"type": "datetime"})], None)
HINTED = Signature.parse(
    {
        "inputs": json.dumps([{"type": "object", "properties": {"a": {"type": "long"}}, "required": True}]),
        "is_signature_from_type_hint": True,
        "from_type_hints": True,
    }
)


def captured(
    folder: Path,
    model: Signature,
    *calls: DecodedRequest,
    results: list[Result] | None = None,
    by_row: bool | None = None,
    **options: Any,
) -> Golden:
    """Write requests as a server does, and read them as a golden set."""
    records = []
    for call in calls:
        each = call.by_row(True) if by_row is None else by_row
        given = results if results is not None else [Ok(None)] * (len(call.table) if each else 1)
        records += records_of(Sample(call, 10, each, given), ANSWER, "sha256:abc", model)
    path = folder / "captured.parquet"
    columns = Columns(model)
    data, rows = columns.parquet(columns.ready(records))
    assert rows == len(records)
    path.write_bytes(data)
    golden = captured_set(VerifyOptions(golden=str(path), **options), model, 0)
    assert golden is not None
    return golden


def served(model: Signature, body: object) -> DecodedRequest:
    return Decoder(model)(json.dumps(body).encode(), "application/json")


def item_of(row: Row) -> tuple[object, ...]:
    return row.columns, row.values


# --- values ----------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
LONGS = st.integers(-(2**63), 2**63 - 1)
NAIVE = st.datetimes(datetime(1678, 1, 1), datetime(2262, 1, 1))
BY_KIND: dict[str, st.SearchStrategy[object]] = {
    "string": TEXTS | st.none(),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "long": LONGS,
    "float": st.floats(width=32, allow_nan=False) | st.none(),
    "double": st.floats(allow_nan=False) | st.none(),
    "boolean": st.booleans(),
    "datetime": NAIVE | st.none(),
    "binary": st.binary(max_size=20),
}
ROWS = st.fixed_dictionaries({"text": TEXTS}, optional={f"of {kind}": values for kind, values in BY_KIND.items()})
NESTED = st.fixed_dictionaries(
    {
        "list": st.lists(LONGS, max_size=3),
        "object": st.fixed_dictionaries({"a": LONGS, "b": TEXTS}),
    },
    optional={"map": st.dictionaries(TEXTS, st.floats(allow_nan=False), max_size=3)},
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | LONGS | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
FOLDER = pytest.TempPathFactory


@pytest.mark.parametrize(("model", "rows"), [("kinds", ROWS), ("nested", NESTED)])
def test_rows_are_read_as_they_were_served(model: str, rows: st.SearchStrategy[Any], tmp_path: Path) -> None:
    declared = MODELS[model].signature

    @settings(max_examples=25, deadline=None)
    @given(st.lists(rows, min_size=1, max_size=8))
    def check(records: list[dict[str, Any]]) -> None:
        names = [str(field.name) for field in declared.inputs or ()]
        calls = [
            DecodedRequest(Table(tuple(kept), [tuple(record[name] for name in kept)]))
            for record in records
            for kept in [[name for name in names if name in record]]
        ]
        golden = captured(tmp_path, declared, *calls)
        items = [item for item in golden.items if isinstance(item, Row)]
        assert [item_of(item) for item in items] == [item_of(row) for call in calls for row in call.table.split()]

    check()


@settings(max_examples=25, deadline=None)
@given(st.lists(JSON_VALUES, min_size=1, max_size=8))
def test_values_of_models_without_a_signature(values: list[Any]) -> None:
    assert [decode(encode(value)) for value in values] == values
    calls = [DecodedRequest(Table(None, [(value,)])) for value in values]
    calls += [DecodedRequest(Table(("a", "input"), [(value, 1)])) for value in values]
    golden = captured(Path(os.environ["PYTEST_CAPTURES"]), OPEN, *calls)
    expected = [row for call in calls for row in call.table.split()]
    assert [item_of(item) for item in golden.items if isinstance(item, Row)] == [item_of(row) for row in expected]


@pytest.fixture(autouse=True)
def _folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_CAPTURES", str(tmp_path_factory.mktemp("captures")))


def test_nanoseconds_surrogates_and_dates_in_lists_are_kept(tmp_path: Path) -> None:
    exact = Nanoseconds.since_epoch(1_700_000_000_000_000_001)
    times = DecodedRequest(Table(("at", "list"), [(exact, [datetime(2026, 1, 2)]), (None, [exact])]))
    assert [item.values for item in captured(tmp_path, HOURS, times).items if isinstance(item, Row)] == times.table.rows
    text = DecodedRequest(Table(("text",), [("a\udc80é",)]))
    assert [content(item) for item in captured(tmp_path, TEXT, text).items] == [{"text": "a\udc80é"}]


def test_tensors_have_their_type_and_documents_their_form(tmp_path: Path) -> None:
    numbers = signature([tensor(-1, 3)], None)
    call = served(numbers, {"inputs": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]]})
    assert [content(item) for item in captured(tmp_path, numbers, call).items] == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]]
    assert str(pq.read_schema(tmp_path / "captured.parquet").field("input").type) == "list<element: double>"
    document = {"messages": [{"role": "user", "content": "Hello"}]}
    for body in (document, {"inputs": {"a": [1, 2], "b": [3]}}):
        call = served(CHAT if body is document else OPEN, body)
        golden = captured(tmp_path, CHAT if body is document else OPEN, call)
        (item,) = golden.items
        assert isinstance(item, Request)
        assert item == Request(call.table, call.params)
        assert golden.file is None
    hinted = served(HINTED, {"inputs": [{"a": 1}, {"a": "x"}]})
    assert [content(item) for item in captured(tmp_path, HINTED, hinted).items] == [{"a": 1}, {"a": "x"}]


def test_predictions_errors_params_and_whole_requests(tmp_path: Path) -> None:
    model = MODELS["kinds"].signature
    rows = [{"text": text} for text in "abc"]
    call = served(model, {"dataframe_records": rows, "params": {"many": 2}})
    failed = Failed(RowRefused("no", remedy="yes"))
    golden = captured(tmp_path, model, call, results=[Ok({"x": float("nan")}), failed, Ok(None)])
    assert golden.expected == {0: {"x": None}}  # as in the response; null counts as no answer
    assert any(golden.params)
    table = pd.read_parquet(tmp_path / "captured.parquet")
    assert list(table.likewise_row) == [0, 1, 2]
    assert list(table.likewise_error_code.fillna("")) == ["", RowRefused.code, ""]
    assert json.loads(table.likewise_params[0])["many"] == 2
    without = captured(tmp_path, model, served(model, {"dataframe_records": rows}))
    assert without.params == [None]  # only defaults
    assert without.file is not None
    whole = captured(tmp_path, TEXT, served(TEXT, {"inputs": ["a", "b"]}), by_row=False, results=[Ok(["B", "A"])])
    (item,) = whole.items
    assert isinstance(item, Request)
    assert (len(item.table), whole.expected) == (2, {0: ["B", "A"]})
    assert list(pd.read_parquet(tmp_path / "captured.parquet").predictions.fillna("")) == ['["B","A"]', ""]
    single = captured(tmp_path, TEXT, served(TEXT, {"inputs": ["a"]}), by_row=False, results=[Ok(["A"])])
    assert single.expected == {0: "A"}


def test_rows_that_do_not_fit_another_model(tmp_path: Path) -> None:
    captured(tmp_path, TEXT, served(TEXT, {"inputs": ["one", "two"]}))
    path = str(tmp_path)
    other = signature([column("text", "long")], None)
    with pytest.raises(Exception, match="text") as error:
        captured_set(VerifyOptions(golden=path), other, 0)
    assert error.value
    taken = captured_set(VerifyOptions(golden=path, sample=1), TEXT, 0)
    assert taken is not None
    assert len(taken) == 1
    with pytest.raises(WrongUsage, match="are known"):
        captured_set(VerifyOptions(golden=path, expected="predictions"), TEXT, 0)
    pd.DataFrame({"text": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(InputInvalid, match="other files"):
        captured_set(VerifyOptions(golden=path), TEXT, 0)
    assert captured_set(VerifyOptions(golden=str(tmp_path / "other.parquet")), TEXT, 0) is None


def test_a_table_of_arrays_is_read_as_lists(tmp_path: Path) -> None:
    lists = signature([column("list", "array", items={"type": "long"})], None)
    call = DecodedRequest(Table(("list",), [([1, 2],)], arrow=ARRAYS))
    assert [content(item) for item in captured(tmp_path, lists, call).items] == [{"list": [1, 2]}]


def test_a_model_with_a_column_of_ours_is_refused() -> None:
    with pytest.raises(WrongUsage, match="named `predictions`"):
        Columns(signature([column("predictions", "string")], None))


WRONG_OPTIONS = ({"capture_rate": -0.1}, {"capture_rate": 1.5}, {"capture_rate": float("nan")},
                 {"capture_bytes": 99_999}, {"capture_days": 0.0}, {"capture_days": -1.0})  # fmt: skip


@pytest.mark.parametrize("options", [ServerOptions, RayOptions])
@pytest.mark.parametrize("wrong", WRONG_OPTIONS, ids=str)
def test_wrong_options_are_refused(options: type[ServerOptions | RayOptions], wrong: dict[str, Any]) -> None:
    with pytest.raises(WrongUsage, match=next(iter(wrong))) as error:
        options(**wrong)
    assert error.value.remedy.startswith("use ")


def test_replicas_on_ray_need_an_absolute_folder() -> None:
    with pytest.raises(WrongUsage, match="captured") as error:
        RayOptions(capture="captured")
    assert "-C capture=/var/captured" in error.value.remedy
    assert RayOptions(capture="/var/captured").capture == "/var/captured"


# --- rows without a form ---------------------------------------------------------------------------------------------


class Strange:
    """A value that neither Arrow nor JSON can keep."""

    def __repr__(self) -> str:
        return "confidential"


def test_only_the_rows_with_a_value_that_no_file_can_keep_are_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_typed = signature([column("text", "string"), column("open", "any", required=False)], None)
    written: list[int] = []
    dropped: list[int] = []

    async def capture(*tables: list[tuple[object, ...]]) -> None:
        folder = CaptureFolder(tmp_path, 10**6, 3600)
        counts = {"on_written": written.append, "on_dropped": dropped.append}
        files = Capture(folder, open_typed, rate=1, bundle="sha256:abc", **counts)
        files.start()
        for rows in tables:
            call = DecodedRequest(Table(("text", "open"), rows))
            files.add(Sample(call, 10, True, [Ok("fine")] * len(rows)), ANSWER)
        await files.close()

    strange = Strange()
    asyncio.run(
        capture(
            [("typed", 1), (strange, 2), (5, {"a": 1})],  # the second has no form in its column, and the third as JSON
            [("open", [strange]), ("kept", None)],
            [("only", strange)],
        )
    )
    assert (sum(written), sum(dropped)) == (3, 3)
    (table,) = (pq.read_table(path) for path in tmp_path.iterdir())
    assert [decode(text) for text in table.column("text").to_pylist()] == ["typed", 5, "kept"]
    assert table.column("predictions").to_pylist() == ['"fine"'] * 3
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1, lines
    assert "confidential" not in lines[0]


# --- the folder ------------------------------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_oldest_files_are_deleted_and_never_those_of_others(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "captures"
    kept = CaptureFolder(folder, 1000, 3600)
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("notes.txt", "likewise-capture-mine.parquet"):
        (folder / name).write_bytes(b"x" * 5000)
    for _ in range(4):
        kept.write(b"y" * 300)
    written = list(folder.glob("likewise-capture-2*.parquet"))
    assert len(written) == 3  # the bound holds with the new file
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in written)
    with pytest.raises(OSError, match="more than the folder"):
        kept.write(b"y" * 1001)
    first = min(written)
    os.utime(first, (time.time() - 3700, time.time() - 3700))
    kept.tidy()
    assert first.name not in names(folder)
    assert {"notes.txt", "likewise-capture-mine.parquet"} <= set(names(folder))


def test_a_partial_file_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    folder = CaptureFolder(tmp_path, 1000, 3600)
    folder.write(b"data")
    (name,) = names(tmp_path)
    partial, fresh = tmp_path / f".{name}.abc12345", tmp_path / f".{name}.def12345"
    for path in (partial, fresh):
        path.write_bytes(b"half")
    os.utime(partial, (time.time() - 100, time.time() - 100))
    CaptureFolder(tmp_path, 1000, 3600)
    assert names(tmp_path) == sorted([name, fresh.name])  # which another process may be writing


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/captures")):
        with pytest.raises(OutputRefused) as error:
            CaptureFolder(path, 1000, 3600)
        assert "--capture DIR" in error.value.remedy
