"""Every client gets its own response, and a failing row affects only its own request."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from bench.engines import POISON, is_own, requests, sleeping
from bench.generator import Outcome, Request, closed, go
from bench.options import Options
from bench.verdict import Check, Verdict, statuses, waits

REQUESTS = 100_000
POISONED = 20_000
CONNECTIONS = 256
ONE_IN = 100  # one request in so many fails
SEVERAL_IN, ROWS = 8, 4  # one request in eight has four rows, to check the order within a response


def swap(options: Options) -> Verdict:
    """Many concurrent clients, each text with a unique id: lost and swapped responses."""
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
    """The model raises for one row in a hundred: 422 for that request, and success for all others."""
    wanted = options.requests or POISONED
    with sleeping(0) as server:
        outcomes = go(closed(server.port, islice(_some_poison(), wanted), CONNECTIONS))
    bad = [one for one in outcomes if one.request.kind == POISON]
    innocent = [one for one in outcomes if one.request.kind != POISON]
    return Verdict(
        "poison",
        {
            "requests": len(outcomes),
            "poison": statuses(bad),
            "innocent": statuses(innocent),
            "per_s": _rate(outcomes),
        },
        [
            Check("failing rows sent", len(bad), "at least", wanted // ONE_IN),
            Check("failing rows without status 422", sum(one.status != 422 for one in bad), "at most", 0),
            Check("other rows without their own response", sum(not is_own(one) for one in innocent), "at most", 0),
        ],
    )


def _singles_and_several() -> Iterator[Request]:
    singles, several = requests("single"), requests("several", rows=ROWS)
    while True:
        yield next(several)
        yield from islice(singles, SEVERAL_IN - 1)


def _some_poison() -> Iterator[Request]:
    innocent, bad = requests("innocent"), requests(POISON)
    while True:
        yield next(bad)
        yield from islice(innocent, ONE_IN - 1)


def _rate(outcomes: list[Outcome]) -> float:
    return round(len(outcomes) / (max(one.ended for one in outcomes) - min(one.sent for one in outcomes)), 1)
