"""Half of the callers leave right after asking, while the engine is saturated: their items should cost no compute."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from math import nan

from bench.engines import asks, computed, sleeping
from bench.generator import HEAD, Ask, Outcome, closed, go
from bench.options import Options
from bench.verdict import Check, Verdict, statuses, waits

SECONDS = 20.0
STAYING = 128  # connections of those who stay: always more than a window holds
METRIC = "likewise_dropped_items_total"


def hangup(options: Options) -> Verdict:
    """How many items of those who left were computed all the same, by the engine's own count."""
    seconds = options.seconds or SECONDS
    with sleeping(options.rows_per_s) as server:
        stayed, left = go(_load(server.port, options.rows_per_s, seconds))
        dropped = server.metric(METRIC)
    wasted = computed().get("leave", 0)
    return Verdict(
        "hangup",
        {
            "stayed": statuses(stayed),
            **waits(stayed),
            "left": left,
            "computed_for_nobody": wasted,
            METRIC: "no such metric" if dropped is None else dropped,
        },
        [
            Check("callers who stayed and got no answer", sum(one.status != 200 for one in stayed), "at most", 0),
            Check("share computed of those who left", wasted / left if left else nan, "at most", 0.05),
            Check("dropped items that /metrics tells of", nan if dropped is None else dropped, "at least", left * 0.9),
        ],
    )


async def _load(port: int, rate: float, seconds: float) -> tuple[list[Outcome], int]:
    """Those who stay ask in a closed loop; as many again, by rate, come and go. Their outcomes, and how many left."""
    leaving = asyncio.create_task(_leave(port, asks("leave"), rate, seconds))
    stayed = await closed(port, asks("stay"), STAYING, seconds=seconds)
    return stayed, await leaving


async def _leave(port: int, texts: Iterator[Ask], rate: float, seconds: float) -> int:
    """Connect, send, close; `rate` times a second. Begins when those who stay have filled the queue."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(min(1.0, seconds / 4))
    due, until = loop.time(), loop.time() + seconds * 0.7
    going: set[asyncio.Task[None]] = set()
    left = 0
    while due < until:
        while due <= loop.time():
            leaving = asyncio.create_task(_ask_and_leave(port, next(texts).body))
            going.add(leaving)
            leaving.add_done_callback(going.discard)
            left += 1
            due += 1 / rate
        await asyncio.sleep(max(0.0005, due - loop.time()))
    await asyncio.gather(*going)
    return left


async def _ask_and_leave(port: int, body: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD % len(body) + body)
    writer.close()
    await writer.wait_closed()
