"""Conversion of Python values to text: JSON, and CSV cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from likewise.core.errors import LikewiseError, RowRefused
from likewise.core.json_values import finite, json_form
from likewise.core.results import Failed, Ok, Result
from likewise.core.text import unicode_fault

_DEPTH = 100  # levels of nesting that are kept when a value as a whole has no JSON form


def as_json(value: object) -> str:
    """One line of JSON. NaN and infinity become null, dates ISO 8601, bytes base64; TypeError for other types."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=json_form)
    except ValueError:
        return json.dumps(finite(value), ensure_ascii=False, allow_nan=False, default=json_form)


def as_some_json(value: object) -> str:
    """One line of JSON for any value: a part without a JSON form is written as its text."""
    try:
        return as_json(value)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(_json_or_text(value, _DEPTH), ensure_ascii=False)


def as_cell(value: object, to_json: Callable[[object], str] = as_json) -> str:
    """One CSV field: text unchanged, None empty, everything else as JSON; NaN and infinity as `NaN` and `Infinity`."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, float):
        return json.dumps(value)
    text = to_json(value)
    # values without a JSON type (dates, bytes) are JSON strings; a CSV field does not need the quotes
    return str(json.loads(text)) if text.startswith('"') else text


def written(prediction: object, convert: Callable[[object], str]) -> Result:
    """The text that `convert` makes of a prediction, or why it cannot be written."""
    try:
        text = convert(prediction)
    except (TypeError, RecursionError) as error:
        return Failed(unwritable(error))
    fault = unicode_fault(text, "the prediction")
    return Failed(fault) if fault else Ok(text)


def unwritable(error: Exception) -> LikewiseError:
    """The error of a row whose prediction raised `error` when it was written."""
    return RowRefused(f"the prediction cannot be written: {error}", remedy="return values of JSON types")


def _json_or_text(value: object, depth: int) -> object:
    """The value with everything that JSON lacks, or that is nested deeper than `depth`, as text."""
    if depth and isinstance(value, Mapping):
        return {str(key): _json_or_text(entry, depth - 1) for key, entry in value.items()}
    if depth and isinstance(value, (list, tuple)):
        return [_json_or_text(entry, depth - 1) for entry in value]
    try:
        return json.loads(as_json(value))
    except (TypeError, ValueError, RecursionError):
        return _text(value)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001  an integer of thousands of digits, or the value's own code
        return f"<{type(value).__name__}>"
