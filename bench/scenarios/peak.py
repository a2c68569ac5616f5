"""The most that a server answers, measured and not assumed: the yardstick of the scenarios that press it."""

from __future__ import annotations

from collections.abc import Iterator

from bench.generator import Ask, closed, go
from bench.servers import Server
from bench.verdict import good

CONNECTIONS = 64
WARM_S = 1.0


def peak(server: Server, asks: Iterator[Ask], seconds: float) -> float:
    """Requests a second with CONNECTIONS callers that ask on as soon as they are answered."""
    go(closed(server.port, asks, CONNECTIONS, seconds=WARM_S))
    outcomes = good(go(closed(server.port, asks, CONNECTIONS, seconds=seconds)))
    if not outcomes:
        raise SystemExit("the server answered nothing, so there is no peak to press it with")
    return len(outcomes) / (max(one.ended for one in outcomes) - min(one.sent for one in outcomes))
