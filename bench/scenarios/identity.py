"""Whose answer is it: every caller gets its own, and a bad row costs nobody but its sender."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from bench.engines import POISON, asks, is_own, sleeping
from bench.generator import Ask, Outcome, closed, go
from bench.options import Options
from bench.verdict import Check, Verdict, statuses, waits

REQUESTS = 100_000
POISONED = 20_000
CONNECTIONS = 256
ONE_IN = 100  # is poison
SEVERAL_IN, ROWS = 8, 4  # one request in eight has four rows: order within an answer is looked at too


def swap(options: Options) -> Verdict:
    """Many callers at once, each text with an identity: answers that were lost, or were another's."""
    wanted = options.requests or REQUESTS
    with sleeping(0) as server:
        outcomes = go(closed(server.port, islice(_singles_and_several(), wanted), CONNECTIONS))
    swapped = [one for one in outcomes if one.status == 200 and not is_own(one)]
    return Verdict(
        "swap",
        {"requests": len(outcomes), "statuses": statuses(outcomes), "per_s": _rate(outcomes), **waits(outcomes)},
        [
            Check("requests sent", len(outcomes), "at least", wanted),
            Check("lost", sum(one.status != 200 for one in outcomes), "at most", 0),
            Check("swapped", len(swapped), "at most", 0),
        ],
    )


def poison(options: Options) -> Verdict:
    """One row in a hundred makes the model raise: 422 for its sender, and the answer for everybody else."""
    wanted = options.requests or POISONED
    with sleeping(0) as server:
        outcomes = go(closed(server.port, islice(_some_poison(), wanted), CONNECTIONS))
    bad = [one for one in outcomes if one.ask.kind == POISON]
    innocent = [one for one in outcomes if one.ask.kind != POISON]
    return Verdict(
        "poison",
        {
            "requests": len(outcomes),
            "poison": statuses(bad),
            "innocent": statuses(innocent),
            "per_s": _rate(outcomes),
        },
        [
            Check("poison rows sent", len(bad), "at least", wanted // ONE_IN),
            Check("poison rows not answered 422", sum(one.status != 422 for one in bad), "at most", 0),
            Check("innocent rows without their own answer", sum(not is_own(one) for one in innocent), "at most", 0),
        ],
    )


def _singles_and_several() -> Iterator[Ask]:
    singles, several = asks("single"), asks("several", rows=ROWS)
    while True:
        yield next(several)
        yield from islice(singles, SEVERAL_IN - 1)


def _some_poison() -> Iterator[Ask]:
    innocent, bad = asks("innocent"), asks(POISON)
    while True:
        yield next(bad)
        yield from islice(innocent, ONE_IN - 1)


def _rate(outcomes: list[Outcome]) -> float:
    return round(len(outcomes) / (max(one.ended for one in outcomes) - min(one.sent for one in outcomes)), 1)
