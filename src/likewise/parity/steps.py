"""Finds the first step of a pipeline whose output differs between this machine and a backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from likewise import api
from likewise.core.items import Item, Row
from likewise.parity.backends.mlflow import started
from likewise.parity.compare import Difference, Mismatch, Tolerance, compare
from likewise.parity.comparison import Comparison
from likewise.parity.golden import Unfit, content

Trace = Sequence[Mapping[str, object]]


def with_steps(
    differences: Sequence[Difference], where: str, comparison: Comparison, tolerance: Tolerance
) -> list[Difference]:
    """The differences, with the first differing step if the model is a pipeline and `where` is `local` or `mlflow`.

    differences: a few of them; `row` is the index of an item.
    """
    if comparison.bundle.manifest.pipeline is None or where not in ("local", "mlflow"):
        return list(differences)
    rows = {each.row: text for each in differences if (text := _text(comparison.golden.items[each.row])) is not None}
    texts = list(rows.values())
    ours = _traced(comparison.bundle, texts)
    if not ours:
        return list(differences)
    theirs = _traced_by_mlflow(comparison, texts) if where == "mlflow" else _traced(comparison.bundle, texts)
    traces = zip(rows, ours, theirs, strict=False)
    steps = {row: _first(mine, other, tolerance) for row, mine, other in traces if other is not None}
    return [replace(each, step=steps.get(each.row)) for each in differences]


def _text(item: Item | Unfit) -> str | None:
    if not isinstance(item, Row):
        return None
    found = content(item)
    value = found.get("text") if isinstance(found, Mapping) else found
    return value if isinstance(value, str) else None


def _traced(bundle: api.Bundle, texts: Sequence[str]) -> list[Trace]:
    """What each step adds to each text in the bundle's engine; empty if its engine has no steps."""
    with closing(bundle.engine()) as engine:
        trace: Callable[[str], Trace] | None = getattr(engine, "trace", None)
        return [] if trace is None else [trace(text) for text in texts]


def _traced_by_mlflow(comparison: Comparison, texts: Sequence[str]) -> list[Trace | None]:
    with started(comparison) as process:
        process.await_loaded()
        return list(process.send({"trace": list(texts)})["value"])


def _first(ours: Trace, theirs: Trace, tolerance: Tolerance) -> str | None:
    """The first step with another output: `Classify.label: positive ≠ negative`."""
    for mine, other in zip(ours, theirs, strict=False):
        found = compare(dict(mine), dict(other), tolerance)
        if isinstance(found, Mismatch):
            return f"{mine['step']}.{found.path}: {found.here} ≠ {found.there}"
    return None
