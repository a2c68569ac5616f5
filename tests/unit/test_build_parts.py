"""Parts of the bundle build: comparing values, the audit hook, namespaces, child processes, trust."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.builder.bundle import trusts
from likewise.builder.equality import values_match
from likewise.builder.output import publish, staging
from likewise.builder.prove import refute_row_wise
from likewise.builder.trace import outermost
from likewise.bundles.format import EngineEntry, Manifest, ModelSource
from likewise.bundles.open import Bundle, write_manifest
from likewise.bundles.trust import Trust
from likewise.core.errors import ModelInvalid, OutputRefused, RowRefused, RowWiseRefuted
from likewise.core.items import Item, Row, Table
from likewise.core.results import Failed, Ok, Result
from likewise.engine.child import run_child
from likewise.engine.example import Example

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_every_value_matches_itself(value: object) -> None:
    assert values_match(value, value)


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
def test_only_numbers_have_a_tolerance(one: object, other: object, expected: bool) -> None:
    assert values_match(one, other) is expected


def _rows(items: Sequence[Item]) -> list[str]:
    return [str(item.values[0]) for item in items if isinstance(item, Row)]


def _row_wise(items: Sequence[Item]) -> list[Result]:
    return [Failed(RowRefused("x", remedy="y")) if "bad" in text else Ok(len(text)) for text in _rows(items)]


def _padded(items: Sequence[Item]) -> list[Result]:
    return [Ok(max(map(len, _rows(items)))) for _ in items]


def _leaking(items: Sequence[Item]) -> list[Result]:
    return [Ok(_rows(items)[0]) for _ in items]


@pytest.mark.parametrize("rows", [["one row only"], ["one", "bad", "three more"]])
def test_row_wise_is_refuted_only_if_rows_depend_on_each_other(rows: list[str]) -> None:
    example = Example(Table(("text",), [(row,) for row in rows]), {})
    refute_row_wise(_row_wise, example)
    for wrong in (_padded, _leaking):
        with pytest.raises(RowWiseRefuted, match="by itself, and"):
            refute_row_wise(wrong, example)


def test_uri_below_another_uri_is_not_vendored_twice(tmp_path: Path) -> None:
    uris = ["runs:/a/model/MLmodel", "runs:/a/model", "runs:/a/model2", "models:/b@c"]
    assert list(outermost(dict.fromkeys(uris, tmp_path))) == ["runs:/a/model", "runs:/a/model2", "models:/b@c"]


CHILD = """
import json, socket, sqlite3, sys
from pathlib import Path
from likewise.builder.isolation import isolate_process
from likewise.builder.audit import AuditWatch
task = json.loads(sys.argv[1])
hidden = [Path(p) for p in task["hidden"]]
kept = [Path(p) for p in task["kept"]]
isolated = task["isolate"] and isolate_process(hidden, kept)
seen = []
if not task["isolate"]:
    AuditWatch(seen.append, own=kept, hidden=hidden, everywhere=task["everywhere"]).start()
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


def _run_isolated(store: Path, kept: Path, *, isolate: bool, everywhere: bool = False) -> dict[str, object]:
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


VISIBLE = """
import json, sys
from pathlib import Path
from likewise.builder.isolation import isolate_process
hidden, kept, paths = ([Path(p) for p in each] for each in json.loads(sys.argv[1]))
isolated = isolate_process(hidden, kept)
print(json.dumps([isolated, [str(p) for p in paths if p.exists()]]))
"""


def test_the_innermost_path_decides_whether_a_file_is_visible(tmp_path: Path) -> None:
    names = ("a/lost", "a/project/code", "a/project/store/lost", "a/project/store/bundle/model", "b/both", "b/a.zip")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "project")
    hidden = [tmp_path / "a/project/store", tmp_path / "a", tmp_path / "b", tmp_path / "b/both", tmp_path / "absent"]
    kept = [tmp_path / name for name in ("a/project/store/bundle", "a/project", "b/both", "b/a.zip", "nowhere")]
    everything = [*(tmp_path / name for name in names), tmp_path / "link" / "code"]
    task = json.dumps([[str(path) for path in paths] for paths in (hidden, kept, everything)])
    done = subprocess.run([sys.executable, "-c", VISIBLE, task], capture_output=True, text=True, check=True, cwd="/")
    isolated, seen = json.loads(done.stdout)
    if not isolated:
        pytest.skip("this kernel does not allow namespaces for this user")
    visible = ("a/project/code", "a/project/store/bundle/model", "b/both", "b/a.zip", "link/code")
    assert seen == [str(tmp_path / name) for name in visible]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A store, and a bundle inside the store's folder."""
    store = tmp_path / "store"
    kept = store / "out" / "bundle"
    kept.mkdir(parents=True)
    (store / "model.bin").write_text("model")
    (kept / "mine.txt").write_text("mine")
    (tmp_path / "other.txt").write_text("other")
    (tmp_path / "single.db").write_text("")
    return store, kept


def test_namespace_hides_store_and_network_but_not_the_bundle(folders: tuple[Path, Path]) -> None:
    store, kept = folders
    result = _run_isolated(store, kept, isolate=True)
    if not result["isolated"]:
        pytest.skip("this kernel does not allow namespaces for this user")
    assert result["texts"][:3] == ["FileNotFoundError", "mine", "other"]  # type: ignore[index]
    assert result["reached"] == "OSError101"  # network is unreachable
    assert (store / "model.bin").read_text() == "model"  # this process still sees the file


def test_audit_hook_reports_access_to_hidden_paths(folders: tuple[Path, Path]) -> None:
    store, kept = folders
    result = _run_isolated(store, kept, isolate=False)
    assert result["seen"] == [
        f"opens the file {store / 'model.bin'}",
        f"opens the database {store.parent / 'single.db'}",
        "connects to 192.0.2.1:9",
    ]


def test_audit_hook_reports_every_outside_file_if_everywhere_is_set(
    tmp_path_factory: pytest.TempPathFactory, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "TMPDIR", str(tmp_path_factory.mktemp("tmp"))
    )  # otherwise all paths here would count as temporary
    store, kept = folders
    result = _run_isolated(store, kept, isolate=False, everywhere=True)
    seen = cast("list[str]", result["seen"])
    assert f"opens the file {store.parent / 'other.txt'}" in seen
    assert not [access for access in seen if "mine.txt" in access or "/etc/" in access]


def _child(tmp_path: Path, code: str, timeout: float = 30.0) -> dict[str, object]:
    (tmp_path / "a_child_of_a_test.py").write_text(code)
    return run_child(
        "a_child_of_a_test",
        {"n": 1},
        tmp_path / "work",
        environment={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        timeout=timeout,
    )


def test_child_result_error_exit_and_timeout_are_reported(tmp_path: Path) -> None:
    write = "import json, sys, tempfile; open(sys.argv[2], 'w').write(json.dumps({}))"
    assert _child(tmp_path, write.format('{"tmp": tempfile.gettempdir(), **json.load(open(sys.argv[1]))}')) == {
        "tmp": str(tmp_path / "work" / "tmp"),
        "n": 1,
        "parent": os.getpid(),
        "progress": ANY,
    }
    failed = {"error": {"kind": "RowRefused", "cause": "c", "remedy": "r"}}
    with pytest.raises(RowRefused, match="c"):
        _child(tmp_path, write.format(failed))
    with pytest.raises(ModelInvalid, match="exited with code 3; last line of output: last words"):
        _child(tmp_path, "import sys; print('last words', flush=True); sys.exit(3)")
    with pytest.raises(ModelInvalid, match="more than 1 s"):
        _child(tmp_path, "import threading; threading.Event().wait()", timeout=1)


RUN_TASK = """
import sys
from likewise.engine.child import run_task

def work(task, folder):
    print("noise " * 1000, flush=True)
    {body}

run_task(work, *sys.argv[1:])
"""


@pytest.mark.parametrize("debug", [False, True])
def test_unexpected_exception_is_reported_without_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, debug: bool
) -> None:
    monkeypatch.setenv("LIKEWISE_DEBUG", "1") if debug else monkeypatch.delenv("LIKEWISE_DEBUG", raising=False)
    with pytest.raises(ModelInvalid, match="ZeroDivisionError: division by zero") as raised:
        _child(tmp_path, RUN_TASK.format(body="1 / 0"))
    assert "Traceback" not in raised.value.cause
    assert len(raised.value.cause) < 200
    assert ["Traceback" in note for note in raised.value.__notes__] == [False, *[True] * debug]  # the remedy is first


def test_only_the_last_output_line_of_a_failed_child_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match=r"last line of output: KeyboardInterrupt\n") as raised:
        _child(tmp_path, RUN_TASK.format(body="raise KeyboardInterrupt"))
    assert "noise" not in raised.value.cause


ORPHAN = """
import os, sys
from pathlib import Path
from likewise.engine.child import run_child
work = Path(sys.argv[1])
run_child("waits", {}, work, environment={**os.environ, "PYTHONPATH": sys.argv[1], "FIFO": sys.argv[2]}, timeout=60)
"""
WAITS = """
import os, sys
from likewise.engine.child import run_task

def work(task, folder):
    with open(os.environ["FIFO"], "w") as fifo:
        print("loading", file=fifo, flush=True)
        import threading; threading.Event().wait()

run_task(work, *sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process when its parent dies")
def test_child_is_killed_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    os.mkfifo(tmp_path / "fifo")
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN, str(tmp_path), str(tmp_path / "fifo")])
    with (tmp_path / "fifo").open() as fifo:
        assert fifo.readline() == "loading\n"
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert select.select([fifo], [], [], 10)[0]  # closed when the child exits
        assert fifo.read() == ""


PROGRAMS = """
import json, os, subprocess, sys
from pathlib import Path
from likewise.builder.audit import AuditWatch
seen, started = [], []
own = Path(sys.argv[1])
AuditWatch(seen.append, own=[own], everywhere=True, on_program=started.append).start()
out = sys.argv[2]
os.chdir(out)
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
subprocess.run(["uname", "-p"], **quiet)
subprocess.run(["cat", f"{own}/mine.txt", "/etc/hosts"], **quiet)
try:
    subprocess.run(["git", "-C", f"{out}/data", "rev-parse", "HEAD"], **quiet)  # as MLflow does to tag traces
except OSError:
    pass
subprocess.run(["cat", f"{out}/w.txt"], **quiet)
subprocess.run(f"cat<{out}/w.txt; true", shell=True, **quiet)
subprocess.run(["cat", "w.txt"], **quiet)
subprocess.run(["ls", f"--directory={out}/data"], **quiet)
subprocess.run(["cat", "w.txt"], cwd=own, **quiet)
os.system(f"cat {out}/w.txt >/dev/null")
os.posix_spawn("/bin/cat", ["cat", f"{out}/gone.txt"], {}, file_actions=[(os.POSIX_SPAWN_CLOSE, 2)])
if os.fork() == 0:
    try:
        os.execv(f"{out}/data/program", ["program"])
    except OSError:
        print(json.dumps({"seen": seen, "started": started}))
"""


def test_audit_hook_reports_started_programs(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "TMPDIR", str(tmp_path_factory.mktemp("tmp"))
    )  # otherwise all paths here would count as temporary
    own, out = tmp_path / "own", tmp_path / "out"
    for folder in (own, out / "data"):
        folder.mkdir(parents=True)
    for file in (own / "mine.txt", out / "w.txt", out / "data" / "program"):
        file.write_text("x")
    command = [sys.executable, "-c", PROGRAMS, str(own), str(out)]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert list(dict.fromkeys(result["seen"])) == [
        f"starts a program on {out}/w.txt: cat {out}/w.txt",
        f"starts a program on {out}/w.txt: /bin/sh -c cat<{out}/w.txt; true",
        f"starts a program on {out}/w.txt: cat w.txt",
        f"starts a program on {out}/data: ls --directory={out}/data",
        f"starts a program on {out}/w.txt: cat {out}/w.txt >/dev/null",
        f"starts a program on {out}/data/program: program",
    ]
    assert list(dict.fromkeys(result["started"])) == [
        "uname -p",
        f"cat {own}/mine.txt /etc/hosts",
        f"git -C {out}/data rev-parse HEAD",
        "cat w.txt",
        f"cat {out}/gone.txt",
    ]


def test_only_errors_of_writing_the_output_become_output_refused(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    for error in (
        OSError(errno.ENOSPC, "full"),
        PermissionError(errno.EACCES, "no", str(tmp_path / ".bundle.x" / "a")),
    ):
        with pytest.raises(OutputRefused), staging(target):
            raise error
    for other in (FileNotFoundError(errno.ENOENT, "no", "/etc/x"), PermissionError(errno.EACCES, "no", "/etc/shadow")):
        with pytest.raises(type(other)), staging(target):
            raise other
    assert list(tmp_path.iterdir()) == []


def _sealed(folder: Path, text: str) -> Bundle:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "MLmodel").write_text(text)
    return write_manifest(folder, Manifest(files={}))


def test_equal_bundle_published_by_another_process_is_used(tmp_path: Path) -> None:
    published = _sealed(tmp_path / "target", "a")
    same, other = _sealed(tmp_path / "same", "a"), _sealed(tmp_path / "other", "b")
    assert publish(same.path, published.path, same.digest).digest == published.digest
    with pytest.raises(OutputRefused, match="another bundle"):
        publish(other.path, published.path, other.digest)


def test_other_build_that_appears_at_the_output_is_not_used(tmp_path: Path) -> None:
    published, same = _sealed(tmp_path / "target", "a"), _sealed(tmp_path / "same", "a")
    assert publish(same.path, published.path, same.digest, same_build=True).build == same.build
    forged = write_manifest(published.path, replace(published.manifest, engines=(EngineEntry("pyfunc", "native"),)))
    assert forged.digest == same.digest
    with pytest.raises(OutputRefused, match="another bundle"):
        publish(same.path, published.path, same.digest, same_build=True)


def test_path_is_trusted_by_the_folder_that_was_copied(tmp_path: Path) -> None:
    """Its owner may have replaced it with a link to a trusted folder in the meantime."""
    built, good = _sealed(tmp_path / "b", "a"), tmp_path / "good"
    good.mkdir()
    (tmp_path / "shared").symlink_to(good)
    copied = replace(built.manifest, source=ModelSource(str(tmp_path / "shared"), str(tmp_path / "shared")))
    assert not trusts(Bundle(built.path, copied), str(tmp_path / "shared"), Trust(entries=(str(good),)))
    copied = replace(copied, source=ModelSource(str(tmp_path / "shared"), str(good)))
    assert trusts(Bundle(built.path, copied), str(tmp_path / "shared"), Trust(entries=(str(good),)))


@pytest.mark.parametrize("typed", ["models:/name@champion", "models:/name", "models:/name/1"])
def test_bundle_is_trusted_by_typed_uri_resolved_uri_or_digest(tmp_path: Path, typed: str) -> None:
    built = _sealed(tmp_path / "b", "a")
    resolved = replace(built.manifest, source=ModelSource("models:/name@champion", "models:/name/1"))
    bundle = Bundle(built.path, resolved)
    assert trusts(bundle, "models:/name@champion", Trust(entries=(typed,)))
    assert trusts(bundle, "models:/name@champion", Trust(entries=(built.build,)))
    assert not trusts(bundle, "models:/name@champion", Trust(entries=(built.digest,)))  # other builds have it too
    assert not trusts(bundle, "models:/name@champion", Trust(entries=("models:/name/2", "runs:/abc")))
