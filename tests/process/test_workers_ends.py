"""Runs that do not end, or end their process: its worker is replaced, and what is run again disturbs no others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.test_workers_process import exists, in_thread, marked, pool, rows
from tests.process.worker_engines import RAISED
from tests.support.processes import PATIENCE, until

from likewise.core.errors import ModelCrashed, ModelRaised, RunTimeout, WorkerDied
from likewise.core.results import Failed, Ok, Result
from likewise.workers import WorkerPool, fleet, sizing, worker

TIMEOUT_S = 2.0


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "LINGER_S", 0.2)


@pytest.fixture(scope="module")
def one() -> Iterator[WorkerPool]:
    with pool(1, run_timeout_s=TIMEOUT_S) as opened:
        yield opened


def call(engine: WorkerPool, *texts: str) -> list[Result]:
    return [result for _, result in engine.answer(rows(*texts))]


def settle(engine: WorkerPool) -> None:
    """Wait until the additional worker has left."""
    until(lambda: engine._fleet._extra is None and len(engine.pids) == 1)


def again(engine: WorkerPool, text: str, seconds: float = TIMEOUT_S) -> Result:
    ((_, result),) = engine.answer(rows(text), alone_s=seconds)
    return result


def test_long_run_is_ended_and_an_additional_worker_serves_at_once(one: WorkerPool, tmp_path: Path) -> None:
    """The model holds the GIL, so that nothing in its process could end it."""
    (before,) = one.pids
    hanging = in_thread(lambda: call(one, "a", f"spin {tmp_path}"))
    marked(tmp_path)
    started = time.monotonic()
    waiting = in_thread(lambda: call(one, "next"))
    assert waiting.result(PATIENCE) == [Ok("next")]
    assert time.monotonic() - started < TIMEOUT_S + 5
    with pytest.raises(RunTimeout, match="within 2 s"):
        hanging.result(PATIENCE)
    assert not exists(before)
    until(lambda: len(one.pids) == 1)
    assert before not in one.pids


def test_additional_worker_leaves_when_it_is_not_needed_any_more(one: WorkerPool, tmp_path: Path) -> None:
    settle(one)
    slow = in_thread(lambda: call(one, f"wait {tmp_path}"))
    marked(tmp_path)
    until(lambda: not one.available)
    until(lambda: len(one.pids) == 2)
    (tmp_path / "go").touch()
    assert slow.result(PATIENCE) == [Ok("released")]
    assert one.available
    settle(one)


def test_items_that_are_run_again_do_not_delay_others(one: WorkerPool, tmp_path: Path) -> None:
    settle(one)
    hanging = in_thread(lambda: [again(one, f"spin {tmp_path}", 0.5)])
    marked(tmp_path)
    started = time.monotonic()
    assert call(one, "new") == [Ok("new")]
    assert time.monotonic() - started < 0.3
    with pytest.raises(RunTimeout):
        hanging.result(PATIENCE)
    assert again(one, "innocent") == Ok("innocent")


def test_item_that_crashes_again_is_at_fault_unless_its_worker_was_killed(one: WorkerPool, tmp_path: Path) -> None:
    with pytest.raises(ModelCrashed, match="exited with code 3"):
        again(one, "die 3")
    killed = in_thread(lambda: [again(one, f"wait {tmp_path}", 60)])
    (pid,) = marked(tmp_path)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDied) as died:
        killed.result(PATIENCE)
    assert not isinstance(died.value, ModelCrashed)


def test_worker_that_was_stopped_is_not_the_fault_of_its_items(one: WorkerPool) -> None:
    settle(one)
    os.kill(one.pids[0], signal.SIGSTOP)
    with pytest.raises(WorkerDied):
        call(one, "innocent")
    assert again(one, "innocent") == Ok("innocent")


@pytest.mark.parametrize("verb", ["exit", *RAISED])
def test_whatever_an_item_raises_fails_only_that_item(one: WorkerPool, verb: str) -> None:
    good, bad, other = call(one, "good", verb, "other")
    assert (good, other) == (Ok("good"), Ok("other"))
    assert isinstance(bad, Failed)
    assert isinstance(bad.error, ModelRaised)


def test_temporary_files_of_a_killed_worker_are_removed(one: WorkerPool, tmp_path: Path) -> None:
    settle(one)
    assert isinstance(call(one, f"keep {tmp_path}")[0], Ok)
    file = Path((tmp_path / "path").read_text())
    assert file.parent.name.startswith(worker.TEMPORARY)
    assert file.is_file()
    (before,) = one.pids
    os.kill(before, signal.SIGKILL)
    until(lambda: not file.parent.exists() and len(one.pids) == 1 and before not in one.pids)


def test_without_a_time_limit_runs_go_on(tmp_path: Path) -> None:
    with pool(1) as opened:
        slow = in_thread(lambda: call(opened, f"wait {tmp_path}"))
        marked(tmp_path)
        assert opened.available
        (tmp_path / "go").touch()
        assert slow.result(PATIENCE) == [Ok("released")]
        with pytest.raises(WorkerDied):
            call(opened, "die 3")
        assert again(opened, "a", 0.0) == Ok("a")


def test_number_of_workers_fits_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "usable_cores", lambda: 8)
    for available, count in ((10 << 40, 4), (0, 1), (None, 4)):
        monkeypatch.setattr(sizing, "available_memory", lambda value=available: value)
        assert sizing.automatic_count(1 << 30, 4) == count
        assert sizing.fitting(os.getpid(), 4) == count
    assert sizing.automatic_count(1 << 30, 1) == 1
