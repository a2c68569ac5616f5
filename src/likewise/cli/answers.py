"""The table that shows a deployment's response on a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

LABEL = "label"  # the column that comes first


def unfolded(text: str) -> tuple[Sequence[str], Sequence[Sequence[str]]] | None:
    """Header and cells of the predictions in the response, a line each; None if it does not contain a list of them.

    JSON in a prediction's text is parsed, too: an object's keys become columns.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    predictions = document.get("predictions") if isinstance(document, dict) else document
    if isinstance(predictions, dict) and (columns := list(predictions.values())):
        if not all(isinstance(each, list) and len(each) == len(columns[0]) for each in columns):
            return None
        predictions = [dict(zip(predictions, row, strict=True)) for row in zip(*columns, strict=True)]
    if not isinstance(predictions, list):
        return None
    rows = [_columns(_parsed(each)) for each in predictions]
    names = sorted({name: None for row in rows for name in row}, key=lambda name: name.lower() != LABEL)
    return names, [[_cell(row[name]) if name in row else "" for name in names] for row in rows]


def _columns(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {"prediction": value}


def _parsed(value: object) -> object:
    """`value` with each text that is a JSON object or list replaced by that."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    if isinstance(value, dict):
        return {name: _parsed(each) for name, each in value.items()}
    return [_parsed(each) for each in value] if isinstance(value, list) else value


def _cell(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
