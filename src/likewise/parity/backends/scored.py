"""A file or folder that `likewise score` wrote, as a backend: its predictions are found by their rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from likewise.batch.layout import Layout
from likewise.core.errors import InputInvalid, WrongUsage
from likewise.parity.compare import RefusedRow, via_json
from likewise.parity.comparison import Comparison
from likewise.parity.golden import scored_rows
from likewise.targets.http_client import Served


def predict(path: str, comparison: Comparison) -> None:
    """The predictions in the file; InputInvalid if it lacks rows of the golden set, after those that it has."""
    comparison.served = _bundle_of(Path(path))
    found, form = scored_rows(path, comparison.bundle.model_path, comparison.signature, comparison.golden)
    answers = {index: like(value, comparison.ours[index], form) for index, value in found.items()}
    for index, ours in enumerate(comparison.ours):
        if isinstance(ours, RefusedRow):  # for which a job writes no prediction
            answers.setdefault(index, ours)
    comparison.answered(list(answers), list(answers.values()))
    if missing := len(comparison.golden) - len(comparison.answers):
        raise InputInvalid(
            f"{missing} of {len(comparison.golden)} rows are not in {path}, or it has no prediction for them",
            remedy="leave out --golden to compare the rows of the file itself, or score the golden set again",
        )


_NULLS = ("", "NaN", "Infinity", "-Infinity")  # in responses, these numbers are null
_TRUTHS = {"true": True, "false": False}


def like(value: object, ours: object, form: str) -> object:
    """A value of a file as a response has it.

    ours: this machine's prediction, which shows what text means in a CSV, and in a Parquet column of several types.
    """
    if form != "jsonl" and isinstance(value, str) and not isinstance(ours, str):
        if value in _NULLS:
            return None
        try:
            value = _TRUTHS[value.lower()] if value.lower() in _TRUTHS else json.loads(value)
        except (ValueError, RecursionError):
            return value
    value = via_json(value)
    return _without_absent(value, ours) if form == "parquet" else value


def _without_absent(value: object, ours: object) -> object:
    """Without the nulls of entries that only other rows have: a Parquet column has all of them in each row."""
    if isinstance(value, dict) and isinstance(ours, Mapping):
        kept = {name: member for name, member in value.items() if member is not None or name in ours}
        return {name: _without_absent(member, ours.get(name)) for name, member in kept.items()}
    if isinstance(value, list) and isinstance(ours, list) and len(value) == len(ours):
        return [_without_absent(*pair) for pair in zip(value, ours, strict=True)]
    return value


def _bundle_of(path: Path) -> Served:
    """The bundle that wrote the file, from the report next to it."""
    try:
        report = json.loads(Layout.of(path).manifest.read_bytes())
        return Served(report["bundle"], report.get("build") or None)
    except (OSError, ValueError, KeyError, TypeError, WrongUsage):  # the last one of a name that jobs do not write
        return Served()
