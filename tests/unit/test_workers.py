"""The parts of the workers that need no process: messages, restarts and errors."""

from __future__ import annotations

import datetime as dt
import decimal
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.waiting import until

from likewise.core import errors
from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import LikewiseError, ModelFailed, WorkerDied, WrongUsage
from likewise.core.items import Request, Row, Table
from likewise.core.results import Failed, Ok
from likewise.server import ServerOptions
from likewise.workers import PoolOptions, WorkerPool
from likewise.workers.fleet import STEADY_S
from likewise.workers.messages import CLOSE, pack, sendable, unpack
from likewise.workers.worker import Worker

pytestmark = pytest.mark.slow

SPEC = EngineSpec("fake", "none", row_wise=True, thread_safe=True, pure=True, budget=8, slots=1)
PATIENCE = 20  # seconds; none of these tests needs them

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(dt.UTC) | st.timezones()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
columns = st.none() | st.lists(st.text(), max_size=3).map(tuple)
params = st.dictionaries(st.text(), plain, max_size=2)
rows = st.builds(Row, columns, st.lists(plain, max_size=3).map(tuple), params)
tables = st.builds(Table, columns, st.lists(st.lists(plain, max_size=2).map(tuple), max_size=3))
entries = (
    rows
    | st.builds(Request, tables, params)
    | st.builds(Work, st.text(), st.integers(1), st.binary())
    | st.builds(Ok, plain)
)


# --- messages --------------------------------------------------------------------------------------------------------


@given(st.lists(entries, max_size=4))
def test_messages_round_trip(sent: list[Any]) -> None:
    message = pack(sent)
    assert message != CLOSE
    assert unpack(message) == sent


KINDS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, LikewiseError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_round_trips(kind: type[LikewiseError]) -> None:
    received = unpack(pack(Failed(kind("why", remedy="what to do")))).error
    assert type(received) is kind
    assert (received.cause, received.remedy, str(received)) == ("why", "what to do", "why")


class ModelClass:
    """A class that the server process cannot import."""


def raising() -> object:
    """A function that does not exist in the other process."""
    return ModelClass


@pytest.mark.parametrize(
    "value", [ModelClass(), [ModelClass()], {"a": ModelClass}, raising, np.float32(1), threading.Lock(), lambda: 0]
)
def test_types_unknown_to_the_other_process_are_rejected(value: object) -> None:
    with pytest.raises((pickle.PicklingError, TypeError)):
        pack([Ok(value)])


def test_types_of_the_standard_library_are_sent() -> None:
    assert unpack(pack(Ok(decimal.Decimal("1.50")))) == Ok(decimal.Decimal("1.50"))


def test_entry_that_cannot_be_sent_is_reported() -> None:
    good, bad = sendable([Ok(1), Ok(ModelClass())], lambda why: ModelFailed(why, remedy="none"))
    assert good == Ok(1)
    assert isinstance(bad, Failed)
    assert "ModelClass is not a plain value" in bad.error.cause


# --- the pool --------------------------------------------------------------------------------------------------------


class Fake:
    """A fake worker without a process."""

    pid = 0
    killed = False

    def __init__(self, *, exited: bool = False, loads: bool = True) -> None:
        self.exited = threading.Event()
        self.worked = False
        self.exit_description = "the fake worker exited"
        self._loads = loads
        if exited:
            self.exited.set()

    def load(self) -> EngineSpec:
        if not self._loads:
            self.exited.set()
            raise WorkerDied("the fake does not load", remedy="none")
        return SPEC

    def request(self, message: bytes) -> bytes:
        if self.exited.is_set():
            raise WorkerDied("the fake died", remedy="none")
        return pack(([(1, Ok(each)) for each in unpack(message)], {"compiled_calls": 1}))

    def kill(self) -> None:
        self.exited.set()

    request_stop = kill


@contextmanager
def pool_of(
    first: Fake, create: Callable[[], Fake], clock: Callable[[], float] = lambda: 0.0, load_attempts: int = 3
) -> Iterator[WorkerPool]:
    start = cast("Callable[[], Worker]", create)
    pool = WorkerPool(cast("Worker", first), SPEC, start, PoolOptions(load_attempts=load_attempts, clock=clock))
    try:
        yield pool
    finally:
        pool.close()


def run_one(pool: WorkerPool) -> Ok | Failed:
    (result,) = pool.run([Work("a", 1, "a")])
    return result


def test_calls_wait_for_the_replacement() -> None:
    first, second, allowed = Fake(), Fake(), threading.Event()

    def create() -> Fake:
        assert allowed.wait(PATIENCE)
        return second

    with pool_of(first, create) as pool:
        first.kill()
        wait_until_empty(pool)
        with ThreadPoolExecutor(1) as executor:
            waiting = executor.submit(run_one, pool)
            assert not waiting.done()
            allowed.set()
            assert waiting.result(PATIENCE) == Ok("a")
        assert pool.restarts == 1
        assert second.worked


def wait_until_empty(pool: WorkerPool) -> None:
    """Wait until the pool has noticed that its last worker has exited."""
    deadline = time.monotonic() + PATIENCE
    while pool.pids and time.monotonic() < deadline:
        time.sleep(0.001)


def test_waiting_call_fails_if_replacements_do_not_load() -> None:
    first = Fake()
    with pool_of(first, lambda: Fake(loads=False), load_attempts=2) as pool:
        first.worked = True
        first.kill()
        wait_until_empty(pool)
        result = run_one(pool)
        assert isinstance(result, Failed)
        assert isinstance(result.error, WorkerDied)
        assert "the last 2 failed before doing any work: the fake does not load" in result.error.cause
        assert pool.restarts >= 2


def test_steady_run_resets_the_backoff(caplog: pytest.LogCaptureFixture) -> None:
    ticks = iter([0.0, 1.0, 2.0, 3.0, 4.0, 4.0 + STEADY_S, 100.0, 101.0])
    last = Fake()
    replacements = iter([Fake(exited=True), Fake(exited=True), last])
    started = threading.Event()

    def create() -> Fake:
        fake = next(replacements)
        if fake is last:
            started.set()
        return fake

    with caplog.at_level("WARNING", logger="likewise.workers"):
        with pool_of(Fake(exited=True), create, clock=lambda: next(ticks), load_attempts=99):
            assert started.wait(PATIENCE)
        delays = [record.getMessage().rpartition(" in ")[2] for record in caplog.records]
    assert delays == ["0.0 s", "0.1 s", "0.0 s"]


def test_unreadable_response_fails_without_ending_the_worker() -> None:
    class Garbled(Fake):
        def request(self, message: bytes) -> bytes:
            return b"\x80garbage" if unpack(message) == ["bad"] else super().request(message)

    with pool_of(Garbled(), Fake) as pool:
        (result,) = pool.run([Work("a", 1, "bad")])
        assert isinstance(result, Failed)
        assert isinstance(result.error, ModelFailed)
        assert run_one(pool) == Ok("a")
        assert pool.restarts == 0


def test_what_the_workers_count_is_added_up() -> None:
    first, second = Fake(), Fake()
    with pool_of(first, lambda: second) as pool:
        assert pool.counters == {}
        assert run_one(pool) == Ok("a")
        first.kill()
        until(lambda: pool.restarts == 1)
        assert run_one(pool) == Ok("a")
        assert pool.counters == {"compiled_calls": 2}


def test_workers_and_in_process_exclude_each_other() -> None:
    with pytest.raises(WrongUsage, match="in_process"):
        ServerOptions(workers=2, in_process=True)
    assert ServerOptions(workers=0, in_process=True).in_process
