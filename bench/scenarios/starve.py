"""A few long texts in a flood of short ones: near-equal lengths go together, and yet no length waits for ever."""

from __future__ import annotations

import random
from collections.abc import Iterator

from bench.engines import asks, sleeping
from bench.generator import Ask, go, opened
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
    """p50, p99 and max of the wait of each kind."""
    seconds, mixture = options.seconds or SECONDS, _mixture()
    words = LONG_SHARE * LONG_WORDS + (1 - LONG_SHARE) * SHORT_WORDS
    with sleeping(options.rows_per_s, words=words, deadline_s=DEADLINE_S) as server:
        most = peak(server, mixture, min(PEAK_S, seconds))
        outcomes = go(opened(server.port, mixture, LOAD * most, seconds))
    long = waits(one for one in outcomes if one.ask.kind == "long")
    short = waits(one for one in outcomes if one.ask.kind == "short")
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
            Check("not answered", failed, "at most", 0),
            Check("longest wait of a long text, s", long["max_ms"] / 1e3, "at most", DEADLINE_S),
            Check("longest wait of a short text, s", short["max_ms"] / 1e3, "at most", DEADLINE_S),
            Check("p99 of the long / p99 of the short", long["p99_ms"] / short["p99_ms"], "at most", 10.0),
        ],
    )


def _mixture() -> Iterator[Ask]:
    dice = random.Random(8)
    short, long = asks("short", words=SHORT_WORDS), asks("long", words=LONG_WORDS)
    while True:
        yield next(long if dice.random() < LONG_SHARE else short)
