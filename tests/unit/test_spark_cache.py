"""The executors' cache of unpacked archives: bounded, evicts the oldest first, never entries of a running worker."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyspark
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark import cloudpickle

from likewise.core import unpack
from likewise.targets.spark import bootstrap

SIZE = 1000  # bytes of each entry
# a worker: takes the entries named on its input, one per line, prints their folders, and runs until the input ends;
# it fails if an entry that it took is no longer complete
WORKER = """
import os
import sys
from likewise.core import unpack
from likewise.targets.spark import bootstrap
import pyspark

folder, unpack.LIMIT = sys.argv[1], int(sys.argv[2])
pyspark.SparkFiles.get = lambda name: f"{folder}/{name}"
taken = set()
for line in sys.stdin:
    taken.add(bootstrap.unpacked("x.archive", line.strip()))
    assert [os.stat(f"{entry}/weights").st_size for entry in taken] == [1000] * len(taken)
    print(f"{folder}/cache/spark/{line.strip()}", flush=True)
"""


class Worker:
    """A process that uses a cache limited to `entries` entries."""

    def __init__(self, folder: Path, entries: int) -> None:
        command = [sys.executable, "-c", WORKER, str(folder), str(entries * SIZE)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def take(self, *keys: str) -> Path:
        assert self._process.stdin
        assert self._process.stdout
        for key in keys:
            self._process.stdin.write(f"{key}\n")
            self._process.stdin.flush()
            folder = Path(self._process.stdout.readline().strip())
        return folder

    def start(self, *keys: str) -> None:
        """Like `take`, without waiting for the result."""
        assert self._process.stdin
        self._process.stdin.write("".join(f"{key}\n" for key in keys))
        self._process.stdin.flush()

    def end(self) -> int:
        self._process.communicate(timeout=60)
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an archive of SIZE bytes, and with the cache in `cache/spark`."""
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "cache"))
    make_archive(tmp_path)
    return tmp_path


@pytest.fixture
def workers() -> Iterator[ExitStack]:
    with ExitStack() as stop:
        yield stop


def make_archive(folder: Path) -> None:
    (folder / "weights").write_bytes(b"x" * SIZE)
    with tarfile.open(folder / "x.archive", "w:gz") as archive:
        archive.add(folder / "weights", "weights")


def worker(stop: ExitStack, folder: Path, entries: int) -> Worker:
    started = Worker(folder, entries)
    stop.callback(started.kill)
    return started


def entries(folder: Path) -> set[str]:
    """The names of a cache's entries, without locks; each entry must be complete."""
    names = {path.name for path in (folder / "cache" / "spark").iterdir() if path.suffix != ".lock"}
    for name in names:
        assert (folder / "cache" / "spark" / name / "weights").stat().st_size == SIZE
    return names


def test_oldest_entries_are_evicted_unless_a_worker_uses_them(home: Path, workers: ExitStack) -> None:
    old = worker(workers, home, 2)
    assert old.take("a") == home / "cache" / "spark" / "a"
    new = worker(workers, home, 2)
    new.take("b", "c")  # all three are in use: above the limit, but none is evicted
    assert entries(home) == {"a", "b", "c"}
    old.kill()
    new.take("d")
    assert entries(home) == {"b", "c", "d"}
    new.kill()
    worker(workers, home, 2).take("e")
    assert entries(home) == {"d", "e"}
    assert len(list((home / "cache" / "spark").glob("*.lock"))) == 2


def test_taking_an_entry_again_refreshes_its_age(home: Path, workers: ExitStack) -> None:
    for keys in (("a",), ("b",), ("a",)):
        one = worker(workers, home, 2)
        one.take(*keys)
        assert one.end() == 0
    worker(workers, home, 2).take("c")
    assert entries(home) == {"a", "c"}


def test_partial_folders_are_deleted_with_their_entry(home: Path, workers: ExitStack) -> None:
    first = worker(workers, home, 9)
    first.take("a", "b")
    first.kill()
    partial = home / "cache" / "spark" / "a.half"
    partial.mkdir()
    (partial / "weights").write_bytes(b"x" * SIZE)
    worker(workers, home, 2).take("c")
    assert entries(home) == {"b", "c"}


def test_manually_deleted_entry_is_unpacked_again(home: Path, workers: ExitStack) -> None:
    one = worker(workers, home, 9)
    (one.take("a") / "weights").unlink()
    (home / "cache" / "spark" / "a").rmdir()
    assert (one.take("a") / "weights").exists()


def test_concurrent_workers_keep_their_entries(home: Path, workers: ExitStack) -> None:
    crowd = [worker(workers, home, 1) for _ in range(4)]
    keys = ["a", "b", "c", "d"]
    for number, one in enumerate(crowd):
        one.start(*[keys[(number + step) % 4] for step in range(8)])
    assert [one.end() for one in crowd] == [0] * 4
    worker(workers, home, 1).take("z")
    assert entries(home) == {"z"}


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=12), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_cache_matches_a_model_of_least_recent_use(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bool]], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("home")
    make_archive(folder)
    recent: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIKEWISE_CACHE_HOME", str(folder / "cache"))
        patch.setattr(unpack, "LIMIT", limit * SIZE)
        patch.setattr(pyspark.SparkFiles, "get", lambda name: str(folder / name))
        patch.setitem(sys.__dict__, "_likewise_held", locks := {})
        for key, ends in steps:
            own = {path.name for path in locks}
            bootstrap.unpacked("x.archive", key)
            if key not in own:
                added = key not in recent
                recent = [*(name for name in recent if name != key), key]
                for name in [name for name in recent if name not in own | {key}] if added else []:
                    if len(recent) > limit:
                        recent.remove(name)
            assert entries(folder) == set(recent)
            if ends:
                release(locks)
        release(locks)


def release(locks: dict[Path, int]) -> None:
    """Close all locks, as the exit of a process does."""
    for handle in locks.values():
        os.close(handle)
    locks.clear()


def test_entry_is_taken_once_by_modules_unpickled_in_each_task(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyspark.SparkFiles, "get", lambda name: str(home / name))
    monkeypatch.setitem(sys.__dict__, "_likewise_held", locks := {})
    for module in (bootstrap, unpack):
        cloudpickle.register_pickle_by_value(module)
    try:
        sent = cloudpickle.dumps(bootstrap.unpacked)
    finally:
        for module in (bootstrap, unpack):
            cloudpickle.unregister_pickle_by_value(module)
    for _ in range(3):
        cloudpickle.loads(sent)("x.archive", "a")
    assert len(locks) == 1
    release(locks)
