"""Workers from an opener: what each is started with, and the first of them."""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from likewise.core.cores import usable_cores
from likewise.core.engine import Engine
from likewise.core.errors import WrongUsage
from likewise.workers.messages import PROTOCOL, pack
from likewise.workers.pool import WorkerPool
from likewise.workers.worker import Recipe, Worker, kill_all

START_TIMEOUT_S = 600.0
LOAD_ATTEMPTS = 3
# Each library makes as many threads as the machine has cores, in every worker, unless told.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "RAYON_NUM_THREADS",  # tokenizers
)


def open_pool(
    opener: Callable[[], Engine],
    count: int,
    *,
    start_timeout_s: float = START_TIMEOUT_S,
    load_attempts: int = LOAD_ATTEMPTS,
    clock: Callable[[], float] = time.monotonic,
) -> WorkerPool:
    """`count` processes, in each the engine that `opener()` returns there; ready when all have loaded.

    opener: a module's function or a `functools.partial` of one, never of `__main__`.  start_timeout_s: seconds for one
    process to load.  load_attempts: how often a replacement may fail to load before those who wait for it get an error.
    Raises what the opener raised where that is a LikewiseError, else EngineUnavailable; WorkerDied (a process ended
    while it loaded, or took too long), WrongUsage (an opener that cannot be pickled, a count below 1).
    """
    if count < 1:
        raise WrongUsage(f"{count} workers", remedy="ask for at least 1")
    recipe = Recipe(_first_message(opener), start_timeout_s, worker_environment(count, os.environ))
    workers: list[Worker] = []
    try:
        for _ in range(count):
            workers.append(Worker(recipe))  # noqa: PERF401  those before one that fails must be known
        specs = [worker.load() for worker in workers]
    except BaseException:
        kill_all(workers)
        raise
    spec = replace(specs[0], thread_safe=True, slots=count)
    return WorkerPool(workers, spec, lambda: Worker(recipe), load_attempts=load_attempts, clock=clock)


def worker_environment(count: int, inherited: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """`inherited`, and each of `count` workers told its share of the usable cores where the user has not."""
    threads = str(max(1, usable_cores() // count))
    return {**dict.fromkeys(THREAD_VARIABLES, threads), **inherited}


def _first_message(opener: Callable[[], Engine]) -> bytes:
    try:
        pickled = pickle.dumps(opener, PROTOCOL)
    except Exception as error:
        raise WrongUsage(
            f"the opener cannot be pickled: {error}", remedy="pass a module's function, or a functools.partial of one"
        ) from error
    return pack((list(sys.path), pickled))  # the opener apart: its module is found by that path
