"""Workers as real processes: results, concurrency, and the death of workers or of the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.process import worker_engines
from tests.process.worker_engines import Tricks
from tests.support.processes import PATIENCE, alive, until

from likewise.core.cores import thread_environment
from likewise.core.engine import Engine, predict_items
from likewise.core.errors import (
    Draining,
    EngineUnavailable,
    LikewiseError,
    ModelFailed,
    ModelRaised,
    RowRefused,
    WorkerDied,
    WrongUsage,
)
from likewise.core.items import Item, Request, Row, Table
from likewise.core.results import Failed, Ok, Result
from likewise.workers import PoolOptions, WorkerPool, open_pool, worker

ROOT = Path(__file__).parents[2]


@contextmanager
def pool(count: int = 1, opener: Callable[[], Engine] = worker_engines.tricks, **options: Any) -> Iterator[WorkerPool]:
    opened = open_pool(opener, count, PoolOptions(**options))
    try:
        opened.fill()
        until(lambda: len(opened.pids) == count)
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="module")
def two() -> Iterator[WorkerPool]:
    """A shared pool for tests that do not kill its processes."""
    with pool(2) as opened:
        yield opened


def rows(*texts: object) -> list[Item]:
    return [Row(("text",), (text,)) for text in texts]


def predict(engine: Engine, *texts: object) -> list[Result]:
    return predict_items(engine, rows(*texts))


def value(engine: Engine, text: str) -> object:
    (result,) = predict(engine, text)
    assert isinstance(result, Ok), result
    return result.value


def error(engine: Engine, text: object) -> LikewiseError:
    (result,) = predict(engine, text)
    assert isinstance(result, Failed), result
    return result.error


def exists(pid: int) -> bool:
    """Whether the process exists, including as a zombie."""
    return Path(f"/proc/{pid}").exists()


def marked(folder: Path, count: int = 1) -> list[int]:
    """Wait until `count` processes have called `mark(folder)`; returns their ids."""
    until(lambda: len(list(folder.iterdir())) >= count)
    return [int(path.name) for path in folder.iterdir()]


def in_thread(call: Callable[[], list[Result]]) -> Future[list[Result]]:
    executor = ThreadPoolExecutor(1)
    future = executor.submit(call)
    executor.shutdown(wait=False)
    return future


# --- results ---------------------------------------------------------------------------------------------------------


def test_results_are_the_engines(two: WorkerPool) -> None:
    texts = ["a", "", "ünï\u2028c\0de", "refuse", "own", "x" * 1_000_000]
    assert [str(each) for each in predict(two, *texts)] == [str(each) for each in predict(Tricks(), *texts)]
    assert isinstance(error(two, "refuse"), RowRefused)
    assert predict_items(two, []) == []


def test_spec_is_the_engines_with_one_slot_per_worker(two: WorkerPool) -> None:
    spec = two.spec
    assert (spec.thread_safe, spec.slots, len(two.pids), two.restarts) == (True, 2, 2, 0)
    assert (spec.label, spec.budget) == ("tricks/none", 64)
    assert isinstance(two, Engine)


def test_model_runs_in_another_process(two: WorkerPool) -> None:
    assert value(two, "pid") in two.pids
    assert os.getpid() not in two.pids


def test_two_workers_run_concurrently(two: WorkerPool, tmp_path: Path) -> None:
    meeting = [in_thread(lambda: predict(two, f"meet {tmp_path}")) for _ in range(2)]
    assert [future.result(PATIENCE) for future in meeting] == [[Ok("both")], [Ok("both")]]
    assert set(marked(tmp_path, 2)) == set(two.pids)


def test_third_call_waits_for_an_idle_worker(two: WorkerPool, tmp_path: Path) -> None:
    running = [in_thread(lambda: predict(two, f"wait {tmp_path}")) for _ in range(2)]
    marked(tmp_path, 2)
    third = in_thread(lambda: predict(two, "third"))
    assert not third.done()
    (tmp_path / "go").touch()
    assert third.result(PATIENCE) == [Ok("third")]
    assert [future.result(PATIENCE) for future in running] == [[Ok("released")]] * 2


def test_many_threads_get_the_right_results(two: WorkerPool) -> None:
    with ThreadPoolExecutor(16) as executor:
        calls = [[f"{n}-{m}" for m in range(n % 5 + 1)] for n in range(200)]
        for texts, results in zip(calls, executor.map(lambda texts: predict(two, *texts), calls), strict=True):
            assert results == [Ok(text) for text in texts]


def test_cores_are_divided_among_workers(two: WorkerPool) -> None:
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert value(two, "env OMP_NUM_THREADS") == thread_environment(os.environ, share)["OMP_NUM_THREADS"]


# --- failures of the model -------------------------------------------------------------------------------------------


def test_exception_only_fails_its_item(two: WorkerPool) -> None:
    before = two.pids
    good, bad, other = predict(two, "good", "raise bad number", "other")
    assert (good, other) == (Ok("good"), Ok("other"))
    assert isinstance(bad, Failed)
    assert isinstance(bad.error, ModelRaised)
    assert "ValueError: bad number" in bad.error.cause
    assert "SystemExit: now" in error(two, "exit now").cause
    assert two.pids == before


@pytest.mark.parametrize("text", ["strange", "deep"])
def test_result_that_cannot_be_sent_only_fails_its_item(two: WorkerPool, text: str) -> None:
    before = two.pids
    good, bad, other = predict(two, "good", text, "other")
    assert (good, other) == (Ok("good"), Ok("other"))
    assert isinstance(bad, Failed)
    assert isinstance(bad.error, ModelFailed)
    assert "cannot be sent from the worker process" in bad.error.cause
    assert two.pids == before


@pytest.mark.parametrize("strange", [worker_engines.Strange(), worker_engines.nested(100_000), threading.Lock()])
def test_value_that_cannot_be_sent_only_fails_its_item(two: WorkerPool, strange: object) -> None:
    good, bad, other = predict(two, "good", strange, "other")
    assert (good, other) == (Ok("good"), Ok("other"))
    assert isinstance(bad, Failed)
    assert isinstance(bad.error, RowRefused)
    assert isinstance(error(two, strange), RowRefused)


def test_wrong_number_of_results_does_not_end_the_worker(two: WorkerPool) -> None:
    before = two.pids
    request = Request(Table(("text",), [("a",)]))  # this engine skips requests
    (result,) = predict_items(two, [request])
    assert isinstance(result, Failed)
    assert isinstance(result.error, ModelFailed)
    assert two.pids == before


def test_output_of_a_model_does_not_go_to_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    with pool() as opened:
        assert value(opened, "a") == "a"
    out, err = capfd.readouterr()
    assert out == ""
    assert "noise of a model\n" in err
    assert "noise of a model's tokenizer" in err


# --- deaths ----------------------------------------------------------------------------------------------------------


def test_killed_worker_only_fails_its_own_call(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with pool(2) as opened:
        for folder in (first, second):
            folder.mkdir()
        dying = in_thread(lambda: predict(opened, f"wait {first}", "in the same call"))
        (victim,) = marked(first)
        living = in_thread(lambda: predict(opened, f"wait {second}"))
        marked(second)
        os.kill(victim, signal.SIGKILL)
        for result in dying.result(PATIENCE):
            assert isinstance(result, Failed)
            assert isinstance(result.error, WorkerDied)
            assert "killed by SIGKILL while it ran" in result.error.cause
        (second / "go").touch()
        assert living.result(PATIENCE) == [Ok("released")]
        until(lambda: len(opened.pids) == 2)
        assert victim not in opened.pids
        assert opened.restarts == 1


@pytest.mark.parametrize(
    ("text", "how"),
    [("die 3", "exited with code 3"), ("segfault", "killed by SIGSEGV"), ("die-early", "exited with code 4")],
)
def test_crashed_worker_is_reported_and_replaced(text: str, how: str) -> None:
    with pool() as opened:
        died = error(opened, text)
        assert isinstance(died, WorkerDied)
        assert how in died.cause
        assert value(opened, "next") == "next"
        assert opened.restarts == 1


def test_killed_idle_workers_are_replaced() -> None:
    with pool(2) as opened:
        before = opened.pids
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until(lambda: not set(before) & set(opened.pids))
        assert value(opened, "again") == "again"
        until(lambda: len(opened.pids) == 2)
        assert opened.restarts == 2
        assert not any(exists(pid) for pid in before)


@pytest.mark.parametrize("session", ["", "own"])
def test_child_processes_of_a_worker_are_killed_with_it(session: str) -> None:
    """They also keep its sockets open, which must not hide the crash."""
    with pool() as opened:
        left = value(opened, f"leave {session}".strip())
        assert isinstance(left, int)
        assert "exited with code 3" in error(opened, "die 3").cause
        assert value(opened, "next") == "next"
        until(lambda: not alive(left))


def test_calls_fail_if_replacements_never_load(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with pool(1, partial(worker_engines.good_until, flag), load_attempts=2) as opened:
        flag.touch()
        assert isinstance(error(opened, "die 3"), WorkerDied)
        failed = error(opened, "waits for the replacement")
        assert isinstance(failed, WorkerDied)
        assert "exited with code 9" in failed.cause
        flag.unlink()
        until(lambda: bool(opened.pids))  # the pool keeps trying
        assert value(opened, "again") == "again"


def test_replacement_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    flag, folder = tmp_path / "flag", tmp_path / "loading"
    folder.mkdir()
    opener = partial(worker_engines.hanging_once, flag, folder)
    with pool(1, opener, load_attempts=1, start_timeout_s=3) as opened:
        flag.touch()
        assert isinstance(error(opened, "die 3"), WorkerDied)
        late = error(opened, "waits")
        assert "did not load the model within 3 s" in late.cause
        (loading,) = marked(folder)[:1]
        until(lambda: not exists(loading))


# --- opening and closing ---------------------------------------------------------------------------------------------


def test_error_of_the_opener_is_raised() -> None:
    with pytest.raises(EngineUnavailable) as raised:
        open_pool(worker_engines.unavailable, 2)
    assert (raised.value.cause, raised.value.remedy) == ("no such engine", "name another")


@pytest.mark.parametrize(
    ("opener", "kind", "cause"),
    [
        (worker_engines.broken, EngineUnavailable, "ZeroDivisionError: by a layer"),
        (worker_engines.exiting, EngineUnavailable, "SystemExit: not today"),
        (worker_engines.dying, WorkerDied, "exited with code 7 while it loaded"),
        (lambda: Tricks(), WrongUsage, "cannot be pickled"),
    ],
)
def test_loading_errors_are_reported(opener: Callable[[], Engine], kind: type[LikewiseError], cause: str) -> None:
    with pytest.raises(kind) as raised:
        open_pool(opener, 1)
    assert cause in raised.value.cause


def test_loading_timeout(tmp_path: Path) -> None:
    with pytest.raises(WorkerDied) as raised:
        open_pool(partial(worker_engines.hanging, tmp_path), 2, PoolOptions(start_timeout_s=2))
    assert "within 2 s" in raised.value.cause
    assert not any(exists(int(path.name)) for path in tmp_path.iterdir())


def test_at_least_one_worker_is_required() -> None:
    with pytest.raises(WrongUsage):
        open_pool(worker_engines.tricks, 0)


def test_close_closes_engines_and_frees_all_resources(tmp_path: Path) -> None:
    opened = open_pool(partial(worker_engines.tricks, tmp_path), 2)
    opened.fill()
    until(lambda: len(opened.pids) == 2)
    before = opened.pids
    handles = len(os.listdir("/proc/self/fd"))
    opened.close()
    assert sorted(marked(tmp_path)) == sorted(before)
    assert not any(exists(pid) for pid in before)
    assert opened.pids == ()
    assert len(os.listdir("/proc/self/fd")) < handles
    opened.close()
    assert isinstance(error(opened, "too late"), Draining)


def test_close_aborts_a_run(tmp_path: Path) -> None:
    opened = open_pool(worker_engines.tricks, 1)
    running = in_thread(lambda: predict(opened, f"spin {tmp_path}"))
    (pid,) = marked(tmp_path)
    waiting = in_thread(lambda: predict(opened, "waits"))
    opened.close()
    assert not exists(pid)
    for call in (running, waiting):
        (result,) = call.result(PATIENCE)
        assert isinstance(result, Failed)
        assert result.error.status == 503


def test_close_kills_an_engine_that_does_not_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CLOSE_S", 0.2)
    opened = open_pool(worker_engines.never_closing, 1)
    (pid,) = opened.pids
    opened.close()
    assert not exists(pid)


def test_close_while_a_replacement_is_loading(tmp_path: Path) -> None:
    flag, folder = tmp_path / "flag", tmp_path / "loading"
    folder.mkdir()
    opened = open_pool(partial(worker_engines.hanging_once, flag, folder), 1)
    flag.touch()
    assert isinstance(error(opened, "die 3"), WorkerDied)
    (loading,) = marked(folder)
    opened.close()
    assert not exists(loading)


# --- the parent ------------------------------------------------------------------------------------------------------

PARENT = """
import sys
from tests.process import worker_engines
from tests.process.test_workers_process import in_thread, predict, until
from likewise.workers import open_pool
pool = open_pool(worker_engines.tricks, 2)
pool.fill()
until(lambda: len(pool.pids) == 2)
futures = [in_thread(lambda text=text: predict(pool, text)) for text in sys.argv[1:]]
print(*pool.pids, flush=True)
sys.stdin.read()
for future in futures:
    print(future.result()[0].value)
pool.close()
"""


@contextmanager
def parent(*texts: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process with two workers that predict `texts`; it closes them when its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, *texts],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        yield process, [int(pid) for pid in process.stdout.readline().split()]
    finally:
        process.kill()
        process.communicate()


def test_workers_are_killed_when_their_parent_dies(tmp_path: Path) -> None:
    with parent(f"spin {tmp_path}") as (process, pids):  # one holds the GIL, the other is idle
        marked(tmp_path)
        assert all(alive(pid) for pid in pids)
        process.kill()
        until(lambda: not any(alive(pid) for pid in pids))


def test_workers_ignore_signals(tmp_path: Path) -> None:
    with parent(f"wait {tmp_path}", f"wait {tmp_path}") as (process, pids):
        marked(tmp_path, 2)
        for pid in pids:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        (tmp_path / "go").touch()
        out, _ = process.communicate("", PATIENCE)
        assert (process.returncode, out) == (0, "released\nreleased\n")
        assert not any(exists(pid) for pid in pids)
