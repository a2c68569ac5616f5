"""SIGTERM under load, many times: every accepted request gets a response, and the process exits in time with code 0."""

from __future__ import annotations

import asyncio
import subprocess
import time
from dataclasses import dataclass
from math import nan

from bench.engines import requests, sleeping
from bench.generator import Outcome, go, opened
from bench.options import Options
from bench.scenarios.peak import peak
from bench.servers import Server
from bench.verdict import Check, Verdict, statuses, worst

TIMES = 20
LOAD = 0.8  # of the peak
BEFORE_S = 2.0  # of load, before the signal
AFTER_S = 30.0  # at most, until the listener closes
EXIT_S = 25.0
PEAK_S = 3.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """One stop. seconds: from the signal to the exit; NaN if the process had to be killed."""

    outcomes: list[Outcome]
    code: int | None
    seconds: float


def drain(options: Options) -> Verdict:
    """Accepted requests that failed, exit codes, and seconds to the exit."""
    with sleeping(options.rows_per_s) as server:
        most = peak(server, requests(), PEAK_S)
    stops = [_stop(options.rows_per_s, LOAD * most) for _ in range(options.rounds or TIMES)]
    outcomes = [one for stop in stops for one in stop.outcomes]
    failed = [one for one in outcomes if one.fate != "refused" and one.status != 200]
    return Verdict(
        "drain",
        {
            "peak_per_s": round(most, 1),
            "stops": len(stops),
            "let_in": sum(one.fate != "refused" for one in outcomes),
            "statuses": statuses(outcomes),
            "failed_on_a_connection_that_had_answered": sum(one.connected for one in failed),
            "exit_s": [round(stop.seconds, 2) for stop in stops],
        },
        [
            Check("accepted but failed", len(failed), "at most", 0),
            Check(
                "stops without refused connections at the end", sum(not _refused(stop) for stop in stops), "at most", 0
            ),
            Check("exit codes other than 0", sum(stop.code != 0 for stop in stops), "at most", 0),
            Check("slowest exit, s", worst(stop.seconds for stop in stops), "at most", EXIT_S),
        ],
    )


def _stop(rows_per_s: float, rate: float) -> Stopped:
    with sleeping(rows_per_s) as server:
        stop = go(_load_and_stop(server, rate))
    print(f"  exit {stop.code} after {stop.seconds:.2f} s, {statuses(stop.outcomes)}", flush=True)
    return stop


async def _load_and_stop(server: Server, rate: float) -> Stopped:
    load = asyncio.create_task(opened(server.port, requests(), rate, BEFORE_S + AFTER_S, until_refused=True))
    await asyncio.sleep(BEFORE_S)
    started_at = time.monotonic()
    server.process.terminate()
    exit_status = await asyncio.to_thread(_wait_for_exit, server, started_at)
    return Stopped(await load, *exit_status)


def _wait_for_exit(server: Server, started_at: float) -> tuple[int | None, float]:
    try:
        return server.process.wait(EXIT_S * 2), time.monotonic() - started_at
    except subprocess.TimeoutExpired:
        return None, nan


def _refused(stop: Stopped) -> bool:
    return any(one.fate == "refused" for one in stop.outcomes)
