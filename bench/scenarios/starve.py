"""A few long texts among many short ones: similar lengths are batched together, but no text may starve."""

from __future__ import annotations

import random
from collections.abc import Iterator

from bench.engines import requests, sleeping
from bench.generator import Request, go, opened
from bench.options import Options
from bench.scenarios.peak import peak
from bench.verdict import Check, Verdict, lag_ms, statuses, waits

SHORT_WORDS, LONG_WORDS = 5, 400
LONG_SHARE = 0.02
LOAD = 0.95  # of the peak of the same mixture
SECONDS = 30.0
PEAK_S = 10.0
DEADLINE_S = 10.0


def starve(options: Options) -> Verdict:
    """p50, p99 and max of the latency of each kind."""
    seconds, mixture = options.seconds or SECONDS, _mixture()
    words = LONG_SHARE * LONG_WORDS + (1 - LONG_SHARE) * SHORT_WORDS
    with sleeping(options.rows_per_s, words=words, deadline_s=DEADLINE_S) as server:
        most = peak(server, mixture, min(PEAK_S, seconds))
        outcomes = go(opened(server.port, mixture, LOAD * most, seconds))
    long = waits(one for one in outcomes if one.request.kind == "long")
    short = waits(one for one in outcomes if one.request.kind == "short")
    failed = sum(one.status != 200 for one in outcomes)
    return Verdict(
        "starve",
        {
            "peak_per_s": round(most, 1),
            "statuses": statuses(outcomes),
            "short": short,
            "long": long,
            "generator_lag_p99_ms": lag_ms(outcomes),
        },
        [
            Check("failed", failed, "at most", 0),
            Check("highest latency of a long text, s", long["max_ms"] / 1e3, "at most", DEADLINE_S),
            Check("highest latency of a short text, s", short["max_ms"] / 1e3, "at most", DEADLINE_S),
            Check("p99 of the long / p99 of the short", long["p99_ms"] / short["p99_ms"], "at most", 10.0),
        ],
    )


def _mixture() -> Iterator[Request]:
    dice = random.Random(8)
    short, long = requests("short", words=SHORT_WORDS), requests("long", words=LONG_WORDS)
    while True:
        yield next(long if dice.random() < LONG_SHARE else short)
