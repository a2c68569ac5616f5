"""Verifies that a finished bundle works in isolation: in a child process without store, network and credentials.

On Linux, kernel namespaces hide the network and the store's folders ("namespaces"). In addition, and as the only means
where namespaces are not available, a Python audit hook rejects such accesses ("audit hook").
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from likewise.builder.audit import AuditWatch
from likewise.builder.equality import describe_result, results_match
from likewise.builder.isolation import isolate_process
from likewise.builder.machine_files import LOG_FILES, own_folders, search_paths
from likewise.builder.measure import compared
from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle, open_bundle
from likewise.core import tagged_json
from likewise.core.engine import Engine, predict_items
from likewise.core.errors import LikewiseError, MissingExtra, ModelRaised, NotSelfContained, RowRefused, RowWiseRefuted
from likewise.core.items import Item, Request, Row
from likewise.core.processes import die_with_parent
from likewise.core.results import Failed, Ok, Result
from likewise.core.scratch import scratch_folder
from likewise.engine.child import OnFraction, Task, completed, isolated_environment, run_child, run_task
from likewise.engine.example import Example, read_example, variants
from likewise.engine.kinds import kind_of, runs_code
from likewise.engine.load import open_entry
from likewise.engine.plain_values import per_row, plain
from likewise.engine.pyfunc import PyfuncEngine

TIMEOUT = 1200.0  # seconds
TRIED = 0.5  # typical fraction of the duration after which all engines have been tried, and timing starts
_ELSEWHERE = "it does not raise where it can see all files of this machine, so it may need some of them"
_LOG_AGAIN = f"{LOG_FILES}; log it again"
_REMEDY = "fix the model, or declare row_wise: false (likewise bundle --no-row-wise)"


@dataclass(frozen=True)
class Proof:
    """isolation: `namespaces` or `audit hook`.  engines: labels of those tried.  rows: number of rows compared.

    tried: whether the example has rows that were predicted in different company.
    refuted: why rows are not independent, although the flavour's contract states so; None if they may be.
    dropped: compiled engines that do not work in isolation, and why.
    speeds: as `likewise.builder.measure.compare` returns them; empty if they were not measured.
    """

    isolation: str
    engines: tuple[str, ...]
    rows: int
    tried: bool = False
    refuted: str | None = None
    speeds: Mapping[str, float] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)


def prove(
    bundle: Path,
    *,
    hidden: Sequence[Path],
    code: bool,
    declared: bool = True,
    measure: bool = False,
    expected: str | None = None,
    timeout: float = TIMEOUT,
    progress: OnFraction | None = None,
) -> Proof:
    """Open the bundle in the folder `bundle` in isolation, and predict its example with each engine that may run.

    hidden: the folders and files that the model came from.  code: whether to try engines that run the model's code.
    declared: whether the user or the model states that rows are independent, if they are; else only the flavour's
    contract does, and a dependency only prevents merging.  measure: whether to time the engines on the example.
    expected: what the model's code predicts for the example outside of isolation, as tagged JSON, if it was tried.
    progress: called with the completed fraction.
    Raises NotSelfContained, RowWiseRefuted, and what opening the bundle raises.
    """
    task = {"bundle": str(bundle.resolve()), "code": code}
    task |= {"stores": [str(p) for p in hidden], "elsewhere": [str(p) for p in own_folders()]}
    task |= {"declared": declared, "measure": measure, "expected": expected}
    with scratch_folder("likewise-scratch-proof-") as work:
        environment = isolated_environment(work)
        result = run_child(
            "likewise.builder.prove", task, work, environment=environment, timeout=timeout, progress=progress
        )
    return Proof(
        result["isolation"],
        tuple(result["engines"]),
        result["rows"],
        *(result[name] for name in ("tried", "refuted", "speeds", "dropped")),
    )


# --- in the child -----------------------------------------------------------------------------------------------------

Predict = Callable[[Sequence[Item]], list[Result]]


def _refuse(access: str) -> None:
    raise PermissionError(f"the model {access}, which is not available where the bundle runs")


def _miss(source: str) -> None:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)


def _try_all(task: Task, work: Path) -> dict[str, object]:
    folder, stores = Path(task["bundle"]), [Path(p) for p in task["stores"]]
    kept = (folder, work, *map(Path, search_paths()))
    os.chdir(work)  # the working folder would stay accessible although its path is hidden
    isolated = isolate_process([*stores, *map(Path, task["elsewhere"])], kept)
    die_with_parent(task["parent"])
    AuditWatch(_refuse, own=kept, hidden=stores, everywhere=False, on_source=_miss).start()
    bundle = open_bundle(folder)
    allowed = [e for e in bundle.manifest.engines if task["code"] or not runs_code(e)]
    close = [e for e in allowed if kind_of(e.name).approximate(e)]  # `compile` has compared them with the others
    entries = [e for e in allowed if e not in close]
    example = read_example(bundle.model_path)
    expected = None if task["expected"] is None else Ok(tagged_json.decode(task["expected"]))
    trial = _Trial(bundle, example, task["declared"], bundle.manifest.row_wise, expected)
    predictions = trial.predictions(entries)
    if trial.refuted is not None:  # then no engine is given single rows
        predictions = replace(trial, by_row=False).predictions(entries)
    _compare_engines(predictions)
    tried, dropped = _try_close(replace(trial, by_row=False), close)
    predictions |= tried
    if trial.refuted is not None:
        bundle = replace(bundle, manifest=replace(bundle.manifest, row_wise=False))
    completed(TRIED)
    speeds = compared(bundle, example, code=task["code"], after=TRIED) if task["measure"] else {}
    _check_unchanged(folder)
    return {
        "isolation": "namespaces" if isolated else "audit hook",
        "engines": list(predictions),
        "rows": len(example.table) if example is not None else 0,
        "tried": _has_rows(example),
        "refuted": trial.refuted,
        "speeds": speeds,
        "dropped": dropped,
    }


def _try_close(trial: _Trial, entries: Sequence[EngineEntry]) -> tuple[dict[str, list[Result]], dict[str, str]]:
    """Predictions of compiled engines, and why others do not work in isolation: the bundle works without these."""
    predictions: dict[str, list[Result]] = {}
    dropped: dict[str, str] = {}
    for entry in entries:
        try:
            predictions |= trial.predictions([entry])
        except MissingExtra:
            continue
        except LikewiseError as error:
            dropped[f"{entry.name}/{entry.precision}"] = error.cause
    return predictions, dropped


@dataclass
class _Trial:
    """Predicts the example of `bundle`.

    by_row: whether each row is an item, or the whole example one request.  expected: see `prove`.
    """

    bundle: Bundle
    example: Example | None
    declared: bool
    by_row: bool
    expected: Ok | None = None
    refuted: str | None = None

    def predictions(self, entries: Sequence[EngineEntry]) -> dict[str, list[Result]]:
        """Predictions by engine label, without engines whose libraries are missing; MissingExtra if all are."""
        predictions: dict[str, list[Result]] = {}
        missing: MissingExtra | None = None
        for tried, entry in enumerate(entries):
            completed(TRIED * tried / len(entries))
            try:
                predictions[f"{entry.name}/{entry.precision}"] = self._try(entry)
            except MissingExtra as error:
                missing = missing or error
        if missing is not None and not predictions:
            raise missing
        return predictions

    def _try(self, entry: EngineEntry) -> list[Result]:
        try:
            engine = open_entry(self.bundle, entry)
        except MissingExtra:
            raise
        except LikewiseError as error:
            raise _not_isolated(f"the engine {entry.name} does not load from the bundle in isolation", error) from error
        try:
            return [] if self.example is None else self._predict(engine, self.example)
        except NotSelfContained as error:
            if self.expected is not None and isinstance(error.__cause__, ModelRaised):
                raise NotSelfContained(f"{error.cause}; {_ELSEWHERE}", remedy=_LOG_AGAIN) from error.__cause__
            raise
        finally:
            engine.close()

    def _predict(self, engine: Engine, example: Example) -> list[Result]:
        """The example's prediction: one result per row, if the model returns one."""
        if not self.by_row or not _has_rows(example):
            return _by_row(self._whole_checked(engine, example), len(example.table))
        if self.declared:
            if self.expected is not None:
                self._whole_checked(engine, example)
            try:
                results = _predicted(engine, list(example.table.split(example.params)))
            except LikewiseError as error:
                what = f"the engine {engine.spec.label} cannot predict the input example"
                raise _not_isolated(what, error) from error
            refute_row_wise(partial(predict_items, engine), example)
            return results
        try:
            return _rows_of(engine, example, self._whole_checked(engine, example))
        except RowWiseRefuted as error:
            self.refuted = self.refuted or error.cause
            return []

    def _whole_checked(self, engine: Engine, example: Example) -> Result:
        """The prediction of the whole example; NotSelfContained if a model that is not random has predicted another."""
        result = _whole(engine, example)
        if self.expected is None or not isinstance(engine, PyfuncEngine) or results_match(result, self.expected):
            return result
        if results_match(result, _whole(engine, example)):
            raise NotSelfContained(
                f"for its input example the model predicts {describe_result(result)} in isolation, and "
                f"{describe_result(self.expected)} where it can see all of this machine: it depends on a file, a "
                "setting or a service that the bundle does not contain, or each process predicts something else",
                remedy=_LOG_AGAIN,
            )
        return result


def _has_rows(example: Example | None) -> bool:
    """Whether the rows of the example can be items, so that they can be predicted in any company."""
    return example is not None and example.table.sent is None


def _whole(engine: Engine, example: Example) -> Result:
    """The prediction of the whole example in one call, for a pyfunc as `load_model().predict` is called."""
    try:
        if isinstance(engine, PyfuncEngine) and (result := _as_logged(engine, example)) is not None:
            return result
        return _predicted(engine, [Request(example.table, example.params)])[0]
    except LikewiseError as error:
        raise _not_isolated(f"the engine {engine.spec.label} cannot predict the input example", error) from error


def _predicted(engine: Engine, items: Sequence[Item]) -> list[Result]:
    results = predict_items(engine, items)
    for result in results:
        if isinstance(result, Failed):
            raise result.error
    return results


def _as_logged(engine: PyfuncEngine, example: Example) -> Result | None:
    """The prediction for the example as `load_model().predict` takes it; None if its JSON has lost the types."""
    try:
        return Ok(plain(engine.predict(example.value, example.params)))
    except ModelRaised:
        raise
    except RowRefused:
        return None


def _by_row(result: Result, rows: int) -> list[Result]:
    """A prediction for all rows as one for each, if it can be assigned to rows."""
    try:
        return [Ok(each) for each in per_row(result.value, rows)] if isinstance(result, Ok) else [result]
    except LikewiseError:
        return [result]


def _rows_of(engine: Engine, example: Example, whole: Result) -> list[Result]:
    """Predictions of the example's rows; RowWiseRefuted unless they are those of the whole example, in any company."""
    results = predict_items(engine, list(example.table.split(example.params)))
    expected = _by_row(whole, len(results))
    if len(expected) != len(results) or not all(map(results_match, results, expected)):
        if not results_match(whole, again := _whole(engine, example)):
            raise _random("the example", whole, again)
        raise RowWiseRefuted(
            f"the model gives {describe_result(whole)} for the {len(results)} rows of its example in one request, and "
            f"{describe_result(results[0])} for the first of them as an item",
            remedy=_REMEDY,
        )
    refute_row_wise(partial(predict_items, engine), example, random=True)
    return results


def refute_row_wise(predict: Predict, example: Example, *, random: bool = False) -> None:
    """Raise RowWiseRefuted if a row's prediction depends on the other rows; not raising does not prove independence.

    random: whether to raise it also if a row by itself gives different predictions each time.
    """
    table = example.table
    rows: list[Item] = [Row(table.columns, values, example.params) for values in [*table.rows, *variants(table)]]
    alone = [predict([row])[0] for row in rows]
    for order in (range(len(rows)), range(len(rows) - 1, -1, -1)):
        together = predict([rows[i] for i in order])
        for i, result in zip(order, together, strict=True):
            if results_match(alone[i], result):
                continue
            again = predict([rows[i]])[0]
            if results_match(alone[i], again):
                what = "a row fails by itself" if isinstance(alone[i], Failed) else "rows depend on each other"
                raise RowWiseRefuted(
                    f"{what}: the row {_values(rows[i])} gives {describe_result(alone[i])} by "
                    f"itself, and {describe_result(result)} together with other rows",
                    remedy=_REMEDY,
                )
            if random:
                raise _random(f"the row {_values(rows[i])}", alone[i], again)


def _random(what: str, once: Result, again: Result) -> RowWiseRefuted:
    return RowWiseRefuted(
        f"predictions are random: {what} gives {describe_result(once)}, and the next time "
        f"{describe_result(again)}; to merge rows nevertheless, bundle with --row-wise",
        remedy=_REMEDY,
    )


def _values(item: Item) -> str:
    text = repr(item.values) if isinstance(item, Row) else ""
    return text if len(text) <= 100 else text[:100] + "…"


def _compare_engines(predictions: Mapping[str, list[Result]]) -> None:
    """Raise NotSelfContained unless all engines give the first one's predictions."""
    (first, expected), *others = predictions.items() if predictions else [("", [])]
    for label, results in others:
        for row, (one, other) in enumerate(zip(expected, results, strict=True)):
            if not results_match(one, other):
                raise NotSelfContained(
                    f"two engines give different predictions for row {row} of the input example: "
                    f"{first}: {describe_result(one)}; {label}: {describe_result(other)}",
                    remedy="report this with the model: the declared pipeline and its Python code behave differently",
                )


def _check_unchanged(folder: Path) -> None:
    try:
        open_bundle(folder)
    except LikewiseError as error:
        raise _not_isolated("the model modifies its own files when it runs", error) from error


def _not_isolated(what: str, error: LikewiseError) -> NotSelfContained:
    return NotSelfContained(f"{what}: {error.cause}", remedy=error.remedy)


if __name__ == "__main__":  # python -m likewise.builder.prove TASK RESULT
    run_task(_try_all, *sys.argv[1:])
