"""The engine's part of a job, for every runner: equal rows once, windows of near-equal lengths, bad rows alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from likewise.batch.result_cache import ResultCache
from likewise.core.engine import Engine, Work
from likewise.core.errors import LikewiseError, ModelFailed
from likewise.core.isolation import isolate
from likewise.core.items import Item
from likewise.core.memory import trim
from likewise.core.results import Failed, Ok, Result
from likewise.core.windows import windows

PASSES = 8  # parts for each of an engine's cores in one run, so that none idles long at its end
BROKEN_AFTER = 100  # distinct rows that a model must fail on, having answered none, to be called broken


def prepare(engine: Engine, items: Sequence[Item | Failed]) -> list[Work | Failed]:
    """The engine's work for each item, or why there is none; what is `Failed` already stays so. Thread safe."""
    given = [item for item in items if not isinstance(item, Failed)]
    prepared = iter(isolate(engine.prepare, given))
    return [item if isinstance(item, Failed) else next(prepared) for item in items]


class Scorer:
    """Scores chunks of rows with one engine, one chunk at a time.

    rows: answered or refused so far. answered: distinct rows with an answer. duplicates: rows that got an equal row's
    result. tokens: what the engine computed.  A job that goes on sets them to what they were.
    """

    def __init__(
        self, engine: Engine, *, budget: int | None = None, answers: ResultCache | None = None, whole: bool = True
    ) -> None:
        """Loads an engine that loads lazily.

        budget: tokens a run; None is what the engine does best with. answers: where equal rows of earlier chunks find
        theirs, where the engine is pure; None looks no further than the chunk. whole: it sees the whole job, so that
        it may call a model broken; a task of many has not seen enough.
        """
        self._engine = engine
        self._whole = whole
        spec = engine.spec
        self._pure = spec.pure
        self._answers = answers if spec.pure else None
        self._budget = budget or spec.budget * (PASSES * spec.slots if spec.slots > 1 else 1)
        self.rows = self.answered = self.duplicates = self.tokens = 0

    def answer(self, work: Sequence[Work | Failed], tell: Callable[[], None] = lambda: None) -> list[Result]:
        """One result a work, in order; `tell` is called after each run, with the counts up to date.

        ModelFailed, rather than a whole input without answers, where the first hundred or more distinct rows all fail.
        """
        results: dict[int, Result] = {i: w for i, w in enumerate(work) if isinstance(w, Failed)}
        self.rows += len(results)
        groups = self._unknown(self._groups(work), work, results)
        leading = [w for group in groups if isinstance(w := work[group[0]], Work)]
        for window in windows([w.cost for w in leading], self._budget):
            ran = isolate(self._engine.run, [leading[i] for i in window])
            for index, result in zip(window, ran, strict=True):
                results.update(dict.fromkeys(groups[index], result))
                self.rows += len(groups[index])
                self.answered += isinstance(result, Ok)
            self.tokens += sum(leading[i].cost for i in window)
            tell()
        self.duplicates += sum(len(group) - 1 for group in groups)
        first = [results[group[0]] for group in groups]
        self._remember(leading, first)
        self._refuse_broken(first)
        trim()  # chunks differ in size, and what the largest took would stay
        return [results[index] for index in range(len(work))]

    def _unknown(
        self, groups: list[list[int]], work: Sequence[Work | Failed], results: dict[int, Result]
    ) -> list[list[int]]:
        """The groups without an answer of an earlier chunk; the others get theirs."""
        if self._answers is None:
            return groups
        unknown: list[list[int]] = []
        for group in groups:
            entry = work[group[0]]
            if isinstance(entry, Work) and (known := self._answers.get(entry.key)) is not None:
                results.update(dict.fromkeys(group, known))
                self.rows += len(group)
                self.duplicates += len(group)
            else:
                unknown.append(group)
        return unknown

    def _remember(self, work: Sequence[Work], results: Sequence[Result]) -> None:
        if self._answers is not None:
            for entry, result in zip(work, results, strict=True):
                if isinstance(result, Ok):
                    self._answers.put(entry.key, result.value)

    def _groups(self, work: Sequence[Work | Failed]) -> list[list[int]]:
        """Indices of rows that share one answer, by first appearance; each row alone unless the engine is pure."""
        groups: dict[object, list[int]] = {}
        for index, entry in enumerate(work):
            if isinstance(entry, Work):
                groups.setdefault(entry.key if self._pure else index, []).append(index)
        return list(groups.values())

    def _refuse_broken(self, results: Sequence[Result]) -> None:
        if not self._whole or self.answered or len(results) < BROKEN_AFTER:
            return
        raise broken(len(results), next(result.error for result in results if isinstance(result, Failed)))


def broken(rows: int, one: LikewiseError) -> ModelFailed:
    """The error for a model that answered none of `rows` distinct rows. one: what it said of one of them."""
    return ModelFailed(
        f"the model failed on each of the first {rows} distinct rows; on one of them: {one.cause}", remedy=one.remedy
    )
