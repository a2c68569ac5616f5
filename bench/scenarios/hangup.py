"""Half of the clients disconnect right after their request, on a saturated engine: their items should cost nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from math import nan

from bench.engines import computed, requests, sleeping
from bench.generator import HEAD, Outcome, Request, closed, go
from bench.options import Options
from bench.verdict import Check, Verdict, statuses, waits

SECONDS = 20.0
STAYING = 128  # connections of clients that stay, always more than a window holds
METRIC = "likewise_dropped_items_total"


def hangup(options: Options) -> Verdict:
    """How many items of disconnected clients were computed, according to the engine."""
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
            Check("failures among clients that stayed", sum(one.status != 200 for one in stayed), "at most", 0),
            Check("fraction computed of disconnected clients' items", wasted / left if left else nan, "at most", 0.05),
            Check("dropped items in /metrics", nan if dropped is None else dropped, "at least", left * 0.9),
        ],
    )


async def _load(port: int, rate: float, seconds: float) -> tuple[list[Outcome], int]:
    """A closed loop of clients that stay, and as many that disconnect; outcomes, and number of disconnects."""
    leaving = asyncio.create_task(_leave(port, requests("leave"), rate, seconds))
    stayed = await closed(port, requests("stay"), STAYING, seconds=seconds)
    return stayed, await leaving


async def _leave(port: int, texts: Iterator[Request], rate: float, seconds: float) -> int:
    """Connect, send and disconnect `rate` times per second, starting when the other clients have filled the queue."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(min(1.0, seconds / 4))
    due, until = loop.time(), loop.time() + seconds * 0.7
    going: set[asyncio.Task[None]] = set()
    left = 0
    while due < until:
        while due <= loop.time():
            leaving = asyncio.create_task(_send_and_disconnect(port, next(texts).body))
            going.add(leaving)
            leaving.add_done_callback(going.discard)
            left += 1
            due += 1 / rate
        await asyncio.sleep(max(0.0005, due - loop.time()))
    await asyncio.gather(*going)
    return left


async def _send_and_disconnect(port: int, body: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD % len(body) + body)
    writer.close()
    await writer.wait_closed()
