"""A worker process is killed under load: no request hangs, and the service continues."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from math import nan

from bench.engines import requests
from bench.generator import Outcome, closed, go
from bench.model import body, upper
from bench.options import Options
from bench.servers import Server, likewise_serve, running
from bench.verdict import Check, Verdict, good, statuses, worst

TIMES = 5
WORKERS = 2
CALL_S = 0.02  # duration of a call of the model, so that a killed worker has work in progress
CONNECTIONS = 64
BEFORE_S = 2.0
AFTER_S = 15.0  # load after a kill, since the replacement has to import MLflow
PATIENCE_S = 30.0
PROCESS = "likewise.workers"
EXPECTED = (200, 503)


@dataclass(frozen=True, slots=True)
class Killed:
    """One kill. at: time on the loop's clock; restored_s: seconds until the number of workers is restored, or NaN."""

    at: float
    outcomes: list[Outcome]
    restored_s: float

    @property
    def next_good_s(self) -> float:
        """Seconds from the kill to the first success of a request sent after it; NaN if there is none."""
        return min((one.ended - self.at for one in good(self.outcomes) if one.sent > self.at), default=nan)


def workers(options: Options) -> Verdict:
    """Requests that hang, statuses, and seconds to the next success and to the replacement."""
    model = upper(CALL_S)
    argv = likewise_serve(model.bundle, "--trust", "--workers", str(WORKERS))
    with running(argv, body("the first text")) as server:
        kills = [_kill_one(server, options) for _ in range(options.rounds or TIMES)]
    outcomes = [one for kill in kills for one in kill.outcomes]
    return Verdict(
        "workers",
        {
            "kills": len(kills),
            "statuses": statuses(outcomes),
            "next_good_s": [round(kill.next_good_s, 3) for kill in kills],
            "restored_s": [round(kill.restored_s, 2) for kill in kills],
        },
        [
            Check("hung or cut off", sum(one.fate in ("silent", "cut") for one in outcomes), "at most", 0),
            Check("statuses other than 200 and 503", sum(one.status not in EXPECTED for one in outcomes), "at most", 0),
            Check("slowest next success, s", worst(kill.next_good_s for kill in kills), "at most", 5.0),
            Check("slowest replacement, s", worst(kill.restored_s for kill in kills), "at most", AFTER_S),
        ],
    )


def _kill_one(server: Server, options: Options) -> Killed:
    killed = go(_load_and_kill(server, options.seconds or AFTER_S))
    print(f"  {statuses(killed.outcomes)}, next success after {killed.next_good_s:.3f} s", flush=True)
    return killed


async def _load_and_kill(server: Server, after: float) -> Killed:
    loop = asyncio.get_running_loop()
    load = asyncio.create_task(
        closed(server.port, requests(), CONNECTIONS, seconds=BEFORE_S + after, patience=PATIENCE_S)
    )
    await asyncio.sleep(BEFORE_S)
    before = set(server.children(PROCESS))
    if len(before) != WORKERS:
        raise SystemExit(f"the server has {len(before)} processes named {PROCESS} instead of {WORKERS}")
    at = loop.time()
    os.kill(min(before), signal.SIGKILL)
    restored = await _restored(server, before, after)
    return Killed(at, await load, restored)


async def _restored(server: Server, before: set[int], patience: float) -> float:
    """Seconds until a new worker process replaces the killed one; it may still be loading."""
    started_at = time.monotonic()
    while time.monotonic() - started_at < patience:
        now = set(server.children(PROCESS))
        if len(now) == len(before) and now != before:
            return time.monotonic() - started_at
        await asyncio.sleep(0.02)
    return nan
