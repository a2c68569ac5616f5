"""A row never returns: when others get responses again, and when its worker has been replaced."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from math import nan

from bench.engines import is_own, requests
from bench.generator import Client, Outcome, closed, go
from bench.model import body, hostile
from bench.options import Options
from bench.servers import Server, likewise_serve, running
from bench.verdict import Check, Verdict, good, statuses, worst

TIMES = 3
TIMEOUT_S = 10.0
CONNECTIONS = 16
BEFORE_S = 2.0
AFTER_S = 20.0  # load after the time-out
PATIENCE_S = 60.0
PROCESS = "likewise.workers"
NEXT_S, REPLACED_S = 1.0, 5.0  # thresholds


@dataclass(frozen=True, slots=True)
class Hung:
    """One hung row. due: its time-out, on the loop's clock; replaced_s: seconds from then to a full set of workers."""

    due: float
    row: Outcome
    outcomes: list[Outcome]
    replaced_s: float

    @property
    def next_good_s(self) -> float:
        """Seconds from the time-out to the first response after it to a request that was sent after it."""
        return min((one.ended - self.due for one in good(self.outcomes) if one.sent > self.due), default=nan)


def hung(options: Options) -> Verdict:
    """With one worker, and with as many as by default: responses to the hung row and to others."""
    found = {count: _with_workers(count, options) for count in (1, None)}
    every = [one for some in found.values() for one in some]
    innocent = [outcome for one in every for outcome in one.outcomes]
    return Verdict(
        "hung",
        {
            "run_timeout_s": TIMEOUT_S,
            "hung": statuses(one.row for one in every),
            "others": statuses(innocent),
            **{f"next_good_s, {_name(count)}": [round(one.next_good_s, 3) for one in found[count]] for count in found},
            **{f"replaced_s, {_name(count)}": [round(one.replaced_s, 2) for one in found[count]] for count in found},
        },
        [
            Check("hung rows with another status than 504", sum(one.row.status != 504 for one in every), "at most", 0),
            Check("others without their own response", sum(not is_own(one) for one in innocent), "at most", 0),
            Check("slowest next response, s", worst(one.next_good_s for one in every), "at most", NEXT_S),
            Check("slowest replacement, s", worst(one.replaced_s for one in every), "at most", REPLACED_S),
        ],
    )


def _name(count: int | None) -> str:
    return "workers by default" if count is None else f"{count} worker"


def _with_workers(count: int | None, options: Options) -> list[Hung]:
    words = () if count is None else ("--workers", str(count))
    argv = likewise_serve(hostile().bundle, "--trust", "--run-timeout", f"{TIMEOUT_S:g}", *words, "--no-access-log")
    with running(argv, body("the first text")) as server:
        _settle(server)
        return [_one(server, options) for _ in range(options.rounds or TIMES)]


def _settle(server: Server) -> None:
    """Wait until all workers have loaded, and an additional one has left."""
    steady_since, before = time.monotonic(), server.metric("likewise_workers")
    while time.monotonic() - steady_since < 3:
        time.sleep(0.2)
        if (now := server.metric("likewise_workers")) != before:
            steady_since, before = time.monotonic(), now


def _one(server: Server, options: Options) -> Hung:
    found = go(_load_and_hang(server, TIMEOUT_S + (options.seconds or AFTER_S)))
    print(f"  {found.row.status}, next after {found.next_good_s:.3f} s, replaced after {found.replaced_s:.1f} s")
    _settle(server)
    return found


async def _load_and_hang(server: Server, seconds: float) -> Hung:
    loop = asyncio.get_running_loop()
    workers = await asyncio.to_thread(server.children, PROCESS)
    load = asyncio.create_task(
        closed(server.port, requests(), CONNECTIONS, seconds=BEFORE_S + seconds, patience=PATIENCE_S)
    )
    await asyncio.sleep(BEFORE_S)
    client = Client(server.port)
    client.send(next(requests("hang")))
    due = loop.time() + TIMEOUT_S
    replaced = await _replaced(server, set(workers), due)
    (row,) = await client.settled(PATIENCE_S)
    return Hung(due, row, await load, replaced)


async def _replaced(server: Server, before: set[int], due: float) -> float:
    """Seconds from `due` until one of the workers has ended, and as many as before have loaded the model."""
    loop = asyncio.get_running_loop()
    while loop.time() < due + PATIENCE_S:
        gone = before - set(await asyncio.to_thread(server.children, PROCESS))
        if gone and (await asyncio.to_thread(server.metric, "likewise_workers") or 0) >= len(before):
            return max(0.0, loop.time() - due)
        await asyncio.sleep(0.05)
    return nan
