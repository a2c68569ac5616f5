"""Measures a server's peak throughput, which scenarios use as their reference."""

from __future__ import annotations

from collections.abc import Iterator

from bench.generator import Request, closed, go
from bench.servers import Server
from bench.verdict import good

CONNECTIONS = 64
WARM_S = 1.0


def peak(server: Server, requests: Iterator[Request], seconds: float) -> float:
    """Requests per second of a closed loop with CONNECTIONS clients."""
    go(closed(server.port, requests, CONNECTIONS, seconds=WARM_S))
    outcomes = good(go(closed(server.port, requests, CONNECTIONS, seconds=seconds)))
    if not outcomes:
        raise SystemExit("the server returned no successful response, so its peak cannot be measured")
    return len(outcomes) / (max(one.ended for one in outcomes) - min(one.sent for one in outcomes))
