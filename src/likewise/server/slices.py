"""A long request is passed to the data plane in slices, because each item costs memory and time on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice

from likewise.core.items import Item
from likewise.core.results import Result
from likewise.dataplane import DataPlane, Timing

ROWS = 1000  # per slice: some milliseconds on the event loop


async def submit_sliced(
    plane: DataPlane, items: Iterator[Item], count: int, timing: Timing | None = None
) -> list[Result]:
    """One result per item, in order: two slices are in the queue at a time, so that the engine does not wait.

    The first slice is admitted, or rejected, for all of them.
    """
    results: list[Result] = []
    running: list[asyncio.Task[list[Result]]] = []
    try:
        for start in range(0, count, ROWS):
            part = list(islice(items, ROWS))
            following = count - len(part) if start == 0 else None
            running.append(asyncio.create_task(plane.submit(part, following=following, timing=timing)))
            await asyncio.sleep(0)  # other requests have their turn between two slices
            if len(running) > 1 or running[0].done():
                results += await running.pop(0)
        for task in running:
            results += await task
    finally:
        for task in running:
            task.cancel()
            if task.done() and not task.cancelled():
                task.exception()  # retrieved, so that asyncio does not log it
    return results
