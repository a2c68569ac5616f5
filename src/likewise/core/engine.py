"""The engine's seam: synchronous, one result an item, tokenization apart from compute so that the two overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from likewise.core.items import Item
from likewise.core.results import Failed, Result


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What the rooms above must know of an engine.

    row_wise: rows are independent, so rows of different callers may share a `run`.
    thread_safe: `run` may be called from several threads at once (`prepare` always may).
    pure: equal keys have equal answers, so answers may be cached and shared.
    budget: tokens that one `run` does best with; a hint for `core.windows`.
    digest: of whatever the engine was compiled from, for receipts and headers.
    slots: runs that the engine does best with at once; 1 unless thread_safe.
    overlaps: `prepare` is worth a thread of its own beside `run` (tokenization that leaves Python's lock);
        where it is not, items cost the same, or the engine is not row-wise.
    """

    name: str
    precision: str
    row_wise: bool
    thread_safe: bool
    pure: bool
    budget: int
    digest: str
    slots: int = 1
    overlaps: bool = False

    @property
    def label(self) -> str:
        """`name/precision`, as the header `X-Likewise-Engine` and the batch manifest give it."""
        return f"{self.name}/{self.precision}"


@dataclass(frozen=True, slots=True)
class Work:
    """One item made ready.

    key: equal keys mean equal answers where the engine is pure; for duplicates, and kept on disk, so the same in every
        process. `core.keys.item_key` where the engine knows no better; by less, where only a part of the item counts.
    cost: tokens, at least 1; 1 a row where the engine knows no tokens.
    payload: the engine's own business.
    """

    key: str
    cost: int
    payload: object


@runtime_checkable
class Engine(Protocol):
    """A loaded model. `prepare` and `run` return one entry an argument, in order, and do not raise for a bad item."""

    @property
    def spec(self) -> EngineSpec: ...

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]: ...

    def run(self, work: Sequence[Work]) -> list[Result]: ...

    def close(self) -> None: ...


def answers(engine: Engine, items: Sequence[Item]) -> list[Result]:
    """One result an item, in order: prepare, then run what could be prepared."""
    prepared = engine.prepare(items)
    ran = iter(engine.run([work for work in prepared if not isinstance(work, Failed)]))
    return [work if isinstance(work, Failed) else next(ran) for work in prepared]
