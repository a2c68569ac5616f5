"""Runs an engine on the rows of a job, for all runners: deduplicates, batches by length, isolates failing rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from likewise.batch.chunk_log import ChunkLog
from likewise.batch.result_cache import RowResultCache
from likewise.core.engine import Engine, Work
from likewise.core.isolation import isolate
from likewise.core.items import Item
from likewise.core.memory import trim
from likewise.core.results import Failed, Ok, Result
from likewise.core.windows import windows

PASSES = 8  # batches per engine slot in one run, so that no slot idles for long at its end
LONG_RUN_S = 5.0  # a run of the engine in a job takes no longer, if rows are independent


def prepare(engine: Engine, items: Sequence[Item | Failed]) -> list[Work | Failed]:
    """The engine's work for each item, or its error; items that are already `Failed` stay unchanged. Thread safe."""
    valid = [item for item in items if not isinstance(item, Failed)]
    prepared = iter(isolate(engine.prepare, valid))
    return [item if isinstance(item, Failed) else next(prepared) for item in items]


class Scorer:
    """Scores chunks of rows with one engine, one chunk at a time.

    Of the current chunk: rows, scored or failed so far; answered, distinct rows with a prediction; duplicates, rows
    that reused the result of an equal row; tokens, computed by the engine.  label: of the engine.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        budget: int | None = None,
        cache: RowResultCache | None = None,
        log: ChunkLog | None = None,
    ) -> None:
        """Load the engine if it loads lazily.

        budget: tokens per run; None lets the engine decide. cache: results of earlier chunks, used if the engine is
        pure; with None only rows of the same chunk are deduplicated. log: keeps the results of a chunk as they arrive,
        and has those of an interrupted run.
        """
        self._engine = engine
        spec = engine.spec
        self.label = spec.label
        self._pure = spec.pure
        self._cache = cache if spec.pure else None
        self._log = log
        self._adapts = log is not None and spec.row_wise
        self._most = spec.budget if self._adapts and not spec.pure else None  # rows in a run
        self._budget = budget or spec.budget * (PASSES * spec.slots if spec.slots > 1 else 1)
        self.rows = self.answered = self.duplicates = self.tokens = 0

    def score(self, work: Sequence[Work | Failed], on_run: Callable[[], None] = lambda: None) -> list[Result]:
        """One result per work, in order; `on_run` is called after each run of the engine, with its counts included."""
        self.answered = self.duplicates = self.tokens = 0
        results: dict[int, Result] = {i: w for i, w in enumerate(work) if isinstance(w, Failed)}
        self.rows = len(results)
        groups = self._not_cached(self._groups(work), work, results)
        leading = [w for group in groups if isinstance(w := work[group[0]], Work)]
        for indices, outcomes in self._runs(leading, groups):
            for index, result in zip(indices, outcomes, strict=True):
                results.update(dict.fromkeys(groups[index], result))
                self.rows += len(groups[index])
                self.answered += isinstance(result, Ok)
                self.tokens += leading[index].cost
            on_run()
        self.duplicates += sum(len(group) - 1 for group in groups)
        self._store(leading, [results[group[0]] for group in groups])
        trim()  # returns memory to the system: the largest chunk would otherwise determine the process's size
        return [results[index] for index in range(len(work))]

    def _runs(
        self, work: Sequence[Work], groups: Sequence[Sequence[int]]
    ) -> Iterator[tuple[Sequence[int], Sequence[Result]]]:
        """Run the engine window by window; yields the indices into `work` of each run, and their results.

        groups: the rows that share the result of each entry of `work`.  What the log has is not run again.
        """
        known = {} if self._log is None else self._log.results
        for window in windows([entry.cost for entry in work], self._budget):
            if kept := [index for index in window if index in known]:
                yield kept, [known[index] for index in kept]
            rest = [index for index in window if index not in known]
            while rest:
                run, rest = rest[: self._most], rest[self._most :] if self._most else []
                started = time.monotonic()
                outcomes = isolate(self._engine.run, [work[index] for index in run])
                seconds = time.monotonic() - started
                if self._adapts:  # rows do not depend on the others in their run, of which an interruption loses one
                    self._most = max(1, int(len(run) * LONG_RUN_S / max(1e-6, seconds)))
                if self._log is not None:
                    self._log.add(run, outcomes, sum(len(groups[index]) for index in run), seconds)
                yield run, outcomes

    def _not_cached(
        self, groups: list[list[int]], work: Sequence[Work | Failed], results: dict[int, Result]
    ) -> list[list[int]]:
        """The groups that are not in the cache; the results of the others are added to `results`."""
        if self._cache is None:
            return groups
        missing: list[list[int]] = []
        for group in groups:
            entry = work[group[0]]
            if isinstance(entry, Work) and (cached := self._cache.get(entry.key)) is not None:
                results.update(dict.fromkeys(group, cached))
                self.rows += len(group)
                self.duplicates += len(group)
            else:
                missing.append(group)
        return missing

    def _store(self, work: Sequence[Work], results: Sequence[Result]) -> None:
        if self._cache is not None:
            for entry, result in zip(work, results, strict=True):
                if isinstance(result, Ok):
                    self._cache.put(entry.key, result.value)

    def _groups(self, work: Sequence[Work | Failed]) -> list[list[int]]:
        """Indices of rows that share one result, by first occurrence; single rows unless the engine is pure."""
        groups: dict[object, list[int]] = {}
        for index, entry in enumerate(work):
            if isinstance(entry, Work):
                groups.setdefault(entry.key if self._pure else index, []).append(index)
        return list(groups.values())
