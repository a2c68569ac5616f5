"""The parts of the proof: what is alike, what a watch sees, what a namespace hides."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.build.alike import alike
from likewise.build.child import run_child
from likewise.build.example import Example
from likewise.build.prove import refute_row_wise
from likewise.build.trace import outermost
from likewise.core.errors import ModelInvalid, RowRefused, RowWiseRefuted
from likewise.core.items import Item, Row, Table
from likewise.core.results import Failed, Ok, Result

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_everything_is_like_itself(value: object) -> None:
    assert alike(value, value)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (1.0, 1.00001, True),
        (1.0, 1.01, False),
        (0.0, 1e-9, True),
        (1, 1.0, True),
        (True, 1, False),
        ("a", "a ", False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ([1.0, 2.0], [1.0], False),
        (float("nan"), float("nan"), True),
        (float("inf"), float("-inf"), False),
        (None, "", False),
    ],
)
def test_numbers_may_differ_a_little_and_nothing_else(one: object, other: object, expected: bool) -> None:
    assert alike(one, other) is expected


def _rows(items: Sequence[Item]) -> list[str]:
    return [str(item.values[0]) for item in items if isinstance(item, Row)]


def _honest(items: Sequence[Item]) -> list[Result]:
    return [Failed(RowRefused("x", remedy="y")) if "bad" in text else Ok(len(text)) for text in _rows(items)]


def _padded(items: Sequence[Item]) -> list[Result]:
    return [Ok(max(map(len, _rows(items)))) for _ in items]


def _leaking(items: Sequence[Item]) -> list[Result]:
    return [Ok(_rows(items)[0]) for _ in items]


@pytest.mark.parametrize("rows", [["one row only"], ["one", "bad", "three more"]])
def test_row_wise_is_refuted_by_neighbours_alone(rows: list[str]) -> None:
    example = Example(Table(("text",), [(row,) for row in rows]), {})
    refute_row_wise(_honest, example)
    for wrong in (_padded, _leaking):
        with pytest.raises(RowWiseRefuted, match="alone gives"):
            refute_row_wise(wrong, example)


def test_what_lies_under_another_uri_is_not_vendored_twice(tmp_path: Path) -> None:
    uris = ["runs:/a/model/MLmodel", "runs:/a/model", "runs:/a/model2", "models:/b@c"]
    assert list(outermost(dict.fromkeys(uris, tmp_path))) == ["runs:/a/model", "runs:/a/model2", "models:/b@c"]


CHILD = """
import json, socket, sqlite3, sys
from pathlib import Path
from likewise.build.isolation import isolate_process
from likewise.build.watch import Watch
task = json.loads(sys.argv[1])
hidden = [Path(p) for p in task["hidden"]]
kept = [Path(p) for p in task["kept"]]
isolated = task["isolate"] and isolate_process(hidden, kept)
seen = []
if not task["isolate"]:
    Watch(seen.append, own=kept, hidden=hidden, everywhere=task["everywhere"]).start()
def read(path):
    try:
        return open(path).read()
    except OSError as error:
        return type(error).__name__
texts = [read(p) for p in task["read"]]
try:
    sqlite3.connect(task["database"]).execute("select 1")
except sqlite3.Error:
    pass
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
try:
    socket.create_connection(("192.0.2.1", 9), timeout=0.01)
    reached = "connected"
except OSError as error:
    reached = type(error).__name__ + str(error.errno)
print(json.dumps({"isolated": isolated, "seen": seen, "texts": texts, "reached": reached}))
"""


def _in_a_child(store: Path, kept: Path, *, isolate: bool, everywhere: bool = False) -> dict[str, object]:
    task = {
        "hidden": [str(store), str(store.parent / "single.db")],
        "kept": [str(kept)],
        "isolate": isolate,
        "everywhere": everywhere,
        "read": [str(p) for p in (store / "model.bin", kept / "mine.txt", store.parent / "other.txt", "/etc/hosts")],
        "database": str(store.parent / "single.db"),
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(task)], capture_output=True, text=True, check=True, cwd="/"
    )
    result: dict[str, object] = json.loads(done.stdout)
    return result


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A store, and a bundle that lies inside the store's folder."""
    store = tmp_path / "store"
    kept = store / "out" / "bundle"
    kept.mkdir(parents=True)
    (store / "model.bin").write_text("model")
    (kept / "mine.txt").write_text("mine")
    (tmp_path / "other.txt").write_text("other")
    (tmp_path / "single.db").write_text("")
    return store, kept


def test_a_namespace_hides_the_store_and_the_network_and_keeps_the_bundle(places: tuple[Path, Path]) -> None:
    store, kept = places
    found = _in_a_child(store, kept, isolate=True)
    if not found["isolated"]:
        pytest.skip("this kernel gives no namespaces to this user")
    assert found["texts"][:3] == ["FileNotFoundError", "mine", "other"]  # type: ignore[index]
    assert found["reached"] == "OSError101"  # network is unreachable
    assert (store / "model.bin").read_text() == "model"  # here nothing has changed


def test_a_watch_names_what_is_hidden(places: tuple[Path, Path]) -> None:
    store, kept = places
    found = _in_a_child(store, kept, isolate=False)
    assert found["seen"] == [
        f"opens the file {store / 'model.bin'}",
        f"opens the database {store.parent / 'single.db'}",
        "connects to 192.0.2.1:9",
    ]


def test_a_watch_everywhere_names_every_file_that_is_nobodys(
    tmp_path_factory: pytest.TempPathFactory, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))  # else everything here is temporary
    store, kept = places
    found = _in_a_child(store, kept, isolate=False, everywhere=True)
    assert f"opens the file {store.parent / 'other.txt'}" in found["seen"]  # type: ignore[operator]
    assert not [touch for touch in found["seen"] if "mine.txt" in touch or "/etc/" in touch]  # type: ignore[attr-defined]


def _child(tmp_path: Path, code: str, timeout: float = 30.0) -> dict[str, object]:
    (tmp_path / "a_child_of_a_test.py").write_text(code)
    return run_child(
        "a_child_of_a_test",
        {"n": 1},
        tmp_path / "work",
        environment={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        timeout=timeout,
    )


def test_a_child_answers_fails_dies_and_hangs_by_name(tmp_path: Path) -> None:
    say = "import json, sys, tempfile; open(sys.argv[2], 'w').write(json.dumps({}))"
    assert _child(tmp_path, say.format('{"tmp": tempfile.gettempdir(), **json.load(open(sys.argv[1]))}')) == {
        "tmp": str(tmp_path / "work" / "tmp"),
        "n": 1,
    }
    failed = {"error": {"kind": "RowRefused", "cause": "c", "remedy": "r"}}
    with pytest.raises(RowRefused, match="c"):
        _child(tmp_path, say.format(failed))
    with pytest.raises(ModelInvalid, match="ended with code 3; it said: last words"):
        _child(tmp_path, "import sys; print('last words', flush=True); sys.exit(3)")
    with pytest.raises(ModelInvalid, match="more than 1 s"):
        _child(tmp_path, "import threading; threading.Event().wait()", timeout=1)
