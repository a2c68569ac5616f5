"""What the threads do: the engine's two stages, apart or in one go, with poison isolated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from likewise.core.engine import Engine, Work
from likewise.core.isolate import broken_off, isolate
from likewise.core.items import Item
from likewise.core.results import Failed, Result

W = TypeVar("W")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One entry an item: what it was made ready to, where this stage did that, and what came out of it."""

    prepared: Sequence[Work | Failed]
    results: Sequence[Result]


def prepare(engine: Engine, items: Sequence[Item]) -> list[Work | Failed]:
    """One `Work` or `Failed` an item; an engine that raises for one item does not fail its neighbours."""
    return _contained(engine.prepare, items)


def run(engine: Engine, work: Sequence[Work]) -> list[Result]:
    """One result a work."""
    return _contained(engine.run, work)


def both(engine: Engine, items: Sequence[Item]) -> Outcome:
    """`prepare`, then `run` of what could be prepared."""
    prepared = prepare(engine, items)
    ran = iter(run(engine, [one for one in prepared if isinstance(one, Work)]))
    return Outcome(prepared, [one if isinstance(one, Failed) else next(ran) for one in prepared])


def _contained(function: Callable[[Sequence[W]], list[R | Failed]], batch: Sequence[W]) -> list[R | Failed]:
    """What a model does to its thread (`sys.exit()` included) ends here, and never in the server."""
    try:
        return isolate(function, batch)
    except BaseException as error:  # noqa: BLE001
        return [Failed(broken_off(error)) for _ in batch]
