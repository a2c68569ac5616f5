"""The response header `Server-Timing`, for requests with `X-Likewise-Timing: 1`.  Source: W3C, Server Timing."""

from __future__ import annotations

from starlette.types import Scope

from likewise.dataplane import Timing
from likewise.server.codec import Encoded

REQUESTED = (b"x-likewise-timing", b"1")
TIMING = "likewise.timing"  # key in a request's scope: its Timing, if it is traced


def timing_of(scope: Scope) -> Timing | None:
    """What measures a request; None if neither its trace nor its client needs it."""
    timing: Timing | None = scope.get(TIMING)
    return Timing() if timing is None and REQUESTED in scope["headers"] else timing


def with_timing(response: Encoded, timing: Timing, scope: Scope) -> Encoded:
    """The response with the header, if the client has requested it."""
    if REQUESTED not in scope["headers"]:
        return response
    value = server_timing(timing)
    return response._replace(headers=(*response.headers, (b"server-timing", value.encode()))) if value else response


def server_timing(timing: Timing) -> str:
    """The header's value, `queue;dur=1.2, engine;dur=3.4, cache;desc="miss", tokens;desc="37"`; durations in ms.

    Without the parts that do not apply: of the queue and the engine if all rows were cached, of the cache if the model
    is not pure, of tokens if the model has none.
    """
    parts = []
    if timing.runs:
        parts += [f"{name};dur={(end - start) * 1e3:.3f}" for name, (start, end) in _spans(timing)]
    if cached := cache_result(timing):
        parts.append(f'cache;desc="{cached}"')
    if timing.tokens > timing.items:  # else one per row: the model has no tokens
        parts.append(f'tokens;desc="{timing.tokens}"')
    return ", ".join(parts)


def cache_result(timing: Timing) -> str:
    """`hit`, `miss` or `shared` for one row, `2 hit 1 miss` for several; empty without a cache."""
    counts = {"hit": timing.hits, "miss": timing.misses, "shared": timing.shared}
    found = {name: count for name, count in counts.items() if count}
    return "".join(found) if sum(found.values()) == 1 else " ".join(f"{n} {name}" for name, n in found.items())


def _spans(timing: Timing) -> tuple[tuple[str, tuple[float, float]], ...]:
    return ("queue", timing.queued), ("engine", timing.engine)
