"""Workers as real processes: the same answers, two at once, and what is left when one of them, or the parent, dies."""

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

import pytest
from tests.process import worker_engines
from tests.process.worker_engines import Tricks
from tests.support.processes import PATIENCE, alive, until

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
from likewise.workers import WorkerPool, open_pool, worker

ROOT = Path(__file__).parents[2]


@contextmanager
def pool(
    count: int = 1, opener: Callable[[], Engine] = worker_engines.tricks, **options: float
) -> Iterator[WorkerPool]:
    opened = open_pool(opener, count, **options)  # type: ignore[arg-type]
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="module")
def two() -> Iterator[WorkerPool]:
    """For tests that end none of its processes."""
    with pool(2) as opened:
        yield opened


def rows(*texts: object) -> list[Item]:
    return [Row(("text",), (text,)) for text in texts]


def ask(engine: Engine, *texts: object) -> list[Result]:
    return predict_items(engine, rows(*texts))


def value(engine: Engine, text: str) -> object:
    (result,) = ask(engine, text)
    assert isinstance(result, Ok), result
    return result.value


def error(engine: Engine, text: object) -> LikewiseError:
    (result,) = ask(engine, text)
    assert isinstance(result, Failed), result
    return result.error


def exists(pid: int) -> bool:
    """Whether anything is left of the process, a zombie included."""
    return Path(f"/proc/{pid}").exists()


def marked(folder: Path, count: int = 1) -> list[int]:
    """The processes that have left their mark in `folder`, once they are so many."""
    until(lambda: len(list(folder.iterdir())) >= count)
    return [int(path.name) for path in folder.iterdir()]


def in_thread(call: Callable[[], list[Result]]) -> Future[list[Result]]:
    executor = ThreadPoolExecutor(1)
    future = executor.submit(call)
    executor.shutdown(wait=False)
    return future


# --- the engine's own answers ----------------------------------------------------------------------------------------


def test_the_answers_are_the_engine_s_own(two: WorkerPool) -> None:
    texts = ["a", "", "ünï\u2028c\0de", "refuse", "own", "x" * 1_000_000]
    assert [str(one) for one in ask(two, *texts)] == [str(one) for one in ask(Tricks(), *texts)]
    assert isinstance(error(two, "refuse"), RowRefused)
    assert predict_items(two, []) == []


def test_the_spec_is_the_engine_s_with_a_slot_a_worker(two: WorkerPool) -> None:
    spec = two.spec
    assert (spec.thread_safe, spec.slots, len(two.pids), two.restarts) == (True, 2, 2, 0)
    assert (spec.label, spec.budget, spec.digest) == ("tricks/none", 64, "sha256:7")
    assert isinstance(two, Engine)


def test_the_model_runs_in_another_process(two: WorkerPool) -> None:
    assert value(two, "pid") in two.pids
    assert os.getpid() not in two.pids


def test_two_run_at_once(two: WorkerPool, tmp_path: Path) -> None:
    meeting = [in_thread(lambda: ask(two, f"meet {tmp_path}")) for _ in range(2)]
    assert [one.result(PATIENCE) for one in meeting] == [[Ok("met")], [Ok("met")]]
    assert set(marked(tmp_path, 2)) == set(two.pids)


def test_a_third_waits_for_an_idle_worker(two: WorkerPool, tmp_path: Path) -> None:
    held = [in_thread(lambda: ask(two, f"hold {tmp_path}")) for _ in range(2)]
    marked(tmp_path, 2)
    third = in_thread(lambda: ask(two, "third"))
    assert [type(one) for one in two.prepare(rows("prepared beside the runs"))] != [Failed]
    assert not third.done()
    (tmp_path / "go").touch()
    assert third.result(PATIENCE) == [Ok("third")]
    assert [one.result(PATIENCE) for one in held] == [[Ok("let go")]] * 2


def test_many_threads_get_their_own_answers(two: WorkerPool) -> None:
    with ThreadPoolExecutor(16) as executor:
        asked = [[f"{n}-{m}" for m in range(n % 5 + 1)] for n in range(200)]
        for texts, results in zip(asked, executor.map(lambda some: ask(two, *some), asked), strict=True):
            assert results == [Ok(text) for text in texts]


def test_each_worker_has_its_share_of_the_cores(two: WorkerPool) -> None:
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert value(two, "env OMP_NUM_THREADS") == os.environ.get("OMP_NUM_THREADS", str(share))


# --- what a model does to its own process ----------------------------------------------------------------------------


def test_what_the_model_raises_is_its_item_s(two: WorkerPool) -> None:
    before = two.pids
    good, bad, other = ask(two, "good", "raise bad number", "other")
    assert (good, other) == (Ok("good"), Ok("other"))
    assert isinstance(bad, Failed)
    assert isinstance(bad.error, ModelRaised)
    assert "ValueError: bad number" in bad.error.cause
    assert isinstance(error(two, "exit now"), ModelFailed)
    assert two.pids == before


@pytest.mark.parametrize("text", ["strange", "deep", "lambda"])
def test_what_cannot_leave_the_process_fails_alone(two: WorkerPool, text: str) -> None:
    before = two.pids
    good, bad, other = ask(two, "good", text, "other")
    assert (good, other) == (Ok("good"), Ok("other"))
    assert isinstance(bad, Failed)
    assert isinstance(bad.error, ModelFailed)
    assert "cannot leave its process" in bad.error.cause
    assert two.pids == before


@pytest.mark.parametrize("strange", [worker_engines.Strange(), worker_engines.nested(100_000), threading.Lock()])
def test_what_cannot_be_sent_is_refused_alone(two: WorkerPool, strange: object) -> None:
    good, bad, other = ask(two, "good", strange, "other")
    assert (good, other) == (Ok("good"), Ok("other"))
    assert isinstance(bad, Failed)
    assert isinstance(bad.error, RowRefused)
    assert isinstance(error(two, strange), RowRefused)


def test_an_engine_that_does_not_keep_count_fails_and_lives(two: WorkerPool) -> None:
    before = two.pids
    request = Request(Table(("text",), [("a",)]))  # this engine forgets it
    prepared = two.prepare([request])
    assert isinstance(prepared[0], Failed)
    assert isinstance(prepared[0].error, ModelFailed)
    assert two.pids == before


def test_what_a_model_prints_stays_out_of_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    with pool() as opened:
        assert value(opened, "a") == "a"
    out, err = capfd.readouterr()
    assert out == ""
    assert "noise of a model\n" in err
    assert "noise of a model's tokenizer" in err


# --- deaths ----------------------------------------------------------------------------------------------------------


def test_a_kill_in_a_run_fails_this_call_alone(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with pool(2) as opened:
        for folder in (first, second):
            folder.mkdir()
        dying = in_thread(lambda: ask(opened, f"hold {first}", "its mate"))
        (victim,) = marked(first)
        living = in_thread(lambda: ask(opened, f"hold {second}"))
        marked(second)
        os.kill(victim, signal.SIGKILL)
        for result in dying.result(PATIENCE):
            assert isinstance(result, Failed)
            assert isinstance(result.error, WorkerDied)
            assert "killed by SIGKILL while it ran" in result.error.cause
        (second / "go").touch()
        assert living.result(PATIENCE) == [Ok("let go")]
        until(lambda: len(opened.pids) == 2)
        assert victim not in opened.pids
        assert opened.restarts == 1


@pytest.mark.parametrize(
    ("text", "how"), [("die 3", "ended with code 3"), ("segfault", "killed by SIGSEGV"), ("die-early", "prepared")]
)
def test_a_crash_is_answered_and_mended(text: str, how: str) -> None:
    with pool() as opened:
        died = error(opened, text)
        assert isinstance(died, WorkerDied)
        assert how in died.cause
        assert value(opened, "and on") == "and on"
        assert opened.restarts == 1


def test_it_answers_again_after_all_were_killed_idle() -> None:
    with pool(2) as opened:
        before = opened.pids
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until(lambda: not set(before) & set(opened.pids))
        assert value(opened, "again") == "again"
        until(lambda: len(opened.pids) == 2)
        assert opened.restarts == 2
        assert not any(exists(pid) for pid in before)


def test_what_a_worker_started_ends_with_it() -> None:
    with pool() as opened:
        left = value(opened, "leave")
        assert isinstance(left, int)
        assert isinstance(error(opened, "die 3"), WorkerDied)
        until(lambda: not alive(left))


def test_a_crash_is_noticed_though_a_process_that_it_left_holds_the_sockets() -> None:
    with pool() as opened:
        left = value(opened, "leave own")
        assert isinstance(left, int)
        try:
            assert "ended with code 3" in error(opened, "die 3").cause
            assert value(opened, "and on") == "and on"
            assert alive(left)  # else this test shows nothing
        finally:
            os.kill(left, signal.SIGKILL)


def test_a_replacement_that_never_loads_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with pool(1, partial(worker_engines.good_until, flag), load_attempts=2) as opened:
        flag.touch()
        assert isinstance(error(opened, "die 3"), WorkerDied)
        hopeless = error(opened, "waits for the replacement")
        assert isinstance(hopeless, WorkerDied)
        assert "ended with code 9" in hopeless.cause
        flag.unlink()
        until(lambda: bool(opened.pids))  # it has gone on trying
        assert value(opened, "again") == "again"


def test_a_replacement_that_takes_too_long_is_ended(tmp_path: Path) -> None:
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


def test_the_opener_s_own_error_comes_out() -> None:
    with pytest.raises(EngineUnavailable) as raised:
        open_pool(worker_engines.unavailable, 2)
    assert (raised.value.cause, raised.value.remedy) == ("no such engine", "name another")


@pytest.mark.parametrize(
    ("opener", "kind", "cause"),
    [
        (worker_engines.broken, EngineUnavailable, "ZeroDivisionError: by a layer"),
        (worker_engines.exiting, EngineUnavailable, "SystemExit: not today"),
        (worker_engines.dying, WorkerDied, "ended with code 7 while it loaded"),
        (lambda: Tricks(), WrongUsage, "cannot be pickled"),
    ],
)
def test_a_pool_that_cannot_load(opener: Callable[[], Engine], kind: type[LikewiseError], cause: str) -> None:
    with pytest.raises(kind) as raised:
        open_pool(opener, 1)
    assert cause in raised.value.cause


def test_a_load_that_takes_too_long(tmp_path: Path) -> None:
    with pytest.raises(WorkerDied) as raised:
        open_pool(partial(worker_engines.hanging, tmp_path), 2, start_timeout_s=2)
    assert "within 2 s" in raised.value.cause
    assert not any(exists(int(path.name)) for path in tmp_path.iterdir())


def test_no_workers_are_no_pool() -> None:
    with pytest.raises(WrongUsage):
        open_pool(worker_engines.tricks, 0)


def test_close_lets_engines_close_and_leaves_nothing(tmp_path: Path) -> None:
    opened = open_pool(partial(worker_engines.tricks, tmp_path), 2)
    before = opened.pids
    handles = len(os.listdir("/proc/self/fd"))
    opened.close()
    assert sorted(marked(tmp_path)) == sorted(before)
    assert not any(exists(pid) for pid in before)
    assert opened.pids == ()
    assert len(os.listdir("/proc/self/fd")) < handles
    opened.close()
    assert isinstance(error(opened, "too late"), Draining)


def test_close_ends_a_run(tmp_path: Path) -> None:
    opened = open_pool(worker_engines.tricks, 1)
    held = in_thread(lambda: ask(opened, f"spin {tmp_path}"))
    (pid,) = marked(tmp_path)
    waiting = in_thread(lambda: ask(opened, "waits"))
    opened.close()
    assert not exists(pid)
    for call in (held, waiting):
        (result,) = call.result(PATIENCE)
        assert isinstance(result, Failed)
        assert result.error.status == 503


def test_close_ends_an_engine_that_never_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CLOSE_S", 0.2)
    opened = open_pool(worker_engines.never_closing, 1)
    (pid,) = opened.pids
    opened.close()
    assert not exists(pid)


def test_close_while_a_replacement_loads(tmp_path: Path) -> None:
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
from tests.process.test_workers_process import ask, in_thread
from likewise.workers import open_pool
pool = open_pool(worker_engines.tricks, 2)
asked = [in_thread(lambda text=text: ask(pool, text)) for text in sys.argv[1:]]
print(*pool.pids, flush=True)
sys.stdin.read()
for one in asked:
    print(one.result()[0].value)
pool.close()
"""


@contextmanager
def parent(*texts: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process with two workers that are asked `texts`; it closes them when its stdin ends."""
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


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    with parent(f"spin {tmp_path}") as (process, pids):  # one holds Python's lock, one is idle
        marked(tmp_path)
        assert all(alive(pid) for pid in pids)
        process.kill()
        until(lambda: not any(alive(pid) for pid in pids))


def test_a_signal_is_the_parent_s_to_answer(tmp_path: Path) -> None:
    with parent(f"hold {tmp_path}", f"hold {tmp_path}") as (process, pids):
        marked(tmp_path, 2)
        for pid in pids:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        (tmp_path / "go").touch()
        out, _ = process.communicate("", PATIENCE)
        assert (process.returncode, out) == (0, "let go\nlet go\n")
        assert not any(exists(pid) for pid in pids)
