"""The engine protocol: synchronous, one result per item, tokenization separate from compute so that the two overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from likewise.core.items import Item
from likewise.core.results import Failed, Result


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """An engine's properties, for the code that schedules it.

    row_wise: rows are independent, so rows of different callers may share a `run`.
    thread_safe: `run` may be called from several threads at the same time (`prepare` always may).
    pure: equal keys give equal results, so results may be cached and shared.
    budget: the number of tokens per `run` that is fastest; a hint for `core.windows`.
    slots: the number of concurrent runs that is fastest; 1 unless thread_safe.
    overlaps: whether `prepare` deserves its own thread next to `run` (tokenization that releases the GIL);
        false if all items cost the same or the engine is not row-wise.
    columns: for a request, the model returns an object with a list per output; a row's prediction is an entry of each.
    """

    name: str
    precision: str
    row_wise: bool
    thread_safe: bool
    pure: bool
    budget: int
    slots: int = 1
    overlaps: bool = False
    columns: bool = False

    @property
    def label(self) -> str:
        """`name/precision`, as in the `X-Likewise-Engine` header and the batch manifest."""
        return f"{self.name}/{self.precision}"


@dataclass(frozen=True, slots=True)
class Work:
    """One prepared item.

    key: for a pure engine, equal keys mean equal results. Used to find duplicates and stored on disk, so it must be the
        same in every process. `core.keys.item_key` by default; coarser if only a part of the item affects the result.
    cost: tokens, at least 1; 1 per row for an engine that does not use tokens.
    payload: opaque data that the engine passes from `prepare` to `run`.
    """

    key: str
    cost: int
    payload: object


@runtime_checkable
class Engine(Protocol):
    """A loaded model. `prepare` and `run` return one entry per argument, in order, and do not raise for a bad item."""

    @property
    def spec(self) -> EngineSpec: ...

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]: ...

    def run(self, work: Sequence[Work]) -> list[Result]: ...

    def close(self) -> None: ...


LATE = 0.5
"""Fraction of the run time-out after which a run of a `ContainedEngine` no longer occupies one of its slots."""


@runtime_checkable
class ContainedEngine(Engine, Protocol):
    """An engine in processes that can be ended: a row that hangs or crashes does not end this process."""

    def answer(self, items: Sequence[Item], *, alone_s: float | None = None) -> list[tuple[int, Result]]:
        """Prepare and run `items` together: for each its cost, 0 if it was not prepared, and its result.

        Raises RunTimeout or WorkerDied if the process was ended before it returned: one of the items is at fault.
        alone_s: for items of such a run, which are run again: seconds after which they are given up, in addition to the
        run time-out. They wait until a process is free that no other call needs; one that crashes again raises
        ModelCrashed.
        """
        ...

    @property
    def available(self) -> bool:
        """Whether a process exists that can run the model."""
        ...

    @property
    def loss(self) -> str:
        """How the last process ended, or why it did not load; empty if all have been running from the start."""
        ...

    def fill(self) -> None:
        """Start the remaining processes, now that the first one is warm; returns at once."""
        ...


def counters(engine: Engine) -> Mapping[str, int]:
    """What an engine counts for the metrics of a server, since it was loaded; empty if it counts nothing.

    compiled_calls, original_calls: calls of compiled modules that were computed compiled, and in torch.
    """
    found: Mapping[str, int] = getattr(engine, "counters", {})
    return found


def predict_items(engine: Engine, items: Sequence[Item]) -> list[Result]:
    """Prepare and run `items`: one result per item, in order."""
    prepared = engine.prepare(items)
    results = iter(engine.run([work for work in prepared if not isinstance(work, Failed)]))
    return [work if isinstance(work, Failed) else next(results) for work in prepared]
