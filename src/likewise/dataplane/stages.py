"""What the threads do: the engine's two stages, with poison isolated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from likewise.core.engine import Engine, Work
from likewise.core.isolate import broken_off, isolate
from likewise.core.items import Item
from likewise.core.results import Failed, Result

W = TypeVar("W")
R = TypeVar("R")
Prepared = Sequence[Work | Failed]
"""One entry an item: it as the engine wants it, or why that cannot be."""


def prepare(engine: Engine, items: Sequence[Item]) -> list[Work | Failed]:
    """One `Work` or `Failed` an item; an engine that raises for one item does not fail its neighbours."""
    return _contained(engine.prepare, items)


def run(engine: Engine, prepared: Prepared) -> list[Result]:
    """One result an item, in order: what could be prepared is run."""
    ran = iter(_contained(engine.run, [one for one in prepared if isinstance(one, Work)]))
    return [one if isinstance(one, Failed) else next(ran) for one in prepared]


def _contained(function: Callable[[Sequence[W]], list[R | Failed]], batch: Sequence[W]) -> list[R | Failed]:
    """What a model does to its thread (`sys.exit()` included) ends here, and never in the server."""
    try:
        return isolate(function, batch)
    except BaseException as error:  # noqa: BLE001
        return [Failed(broken_off(error)) for _ in batch]
