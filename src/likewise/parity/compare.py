"""Compares two predictions of one row: the same, close, or different."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that a backend refused to predict. code: the backend's error code; refusals agree whatever their codes."""

    code: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A row whose predictions differ.

    row: counted from 0. here, there: the predictions on this machine and on the backend, as JSON, shortened.
    """

    row: int
    here: str
    there: str


SHOWN = 300  # characters of a prediction that are shown


def distance(here: object, there: object, tolerance: float) -> float | None:
    """0 if both are equal, the largest difference between numbers if all are close, None if they differ.

    Numbers are close within `tolerance`, which is relative for numbers above 1. Texts that are not equal but contain
    JSON documents are compared as documents, so probabilities in them may be close.
    """
    if isinstance(here, RefusedRow) or isinstance(there, RefusedRow):
        return 0.0 if isinstance(here, RefusedRow) and isinstance(there, RefusedRow) else None
    if _is_number(here) and _is_number(there):
        return _difference(float(here), float(there), tolerance)  # type: ignore[arg-type]
    if isinstance(here, str) and isinstance(there, str):
        return _texts(here, there, tolerance)
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        if here.keys() != there.keys():
            return None
        return _largest([(here[key], there[key]) for key in here], tolerance)
    if isinstance(here, list) and isinstance(there, list):
        return _largest(list(zip(here, there, strict=True)), tolerance) if len(here) == len(there) else None
    return 0.0 if type(here) is type(there) and here == there else None


def shown(prediction: object) -> str:
    """A prediction as one line of text, shortened."""
    if isinstance(prediction, RefusedRow):
        return f"refused: {prediction.code}"
    text = prediction if isinstance(prediction, str) else json.dumps(prediction, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _difference(here: float, there: float, tolerance: float) -> float | None:
    difference = abs(here - there)
    if here == there or (math.isnan(here) and math.isnan(there)):
        return 0.0
    return difference if difference <= tolerance * max(1.0, abs(here), abs(there)) else None


def _texts(here: str, there: str, tolerance: float) -> float | None:
    if here == there:
        return 0.0
    documents = _document(here), _document(there)
    if None in documents:
        return None
    return distance(*documents, tolerance)


def _document(text: str) -> object:
    """The JSON object or list in the text; None if the text is neither."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _largest(pairs: Sequence[tuple[object, object]], tolerance: float) -> float | None:
    distances = [distance(*pair, tolerance) for pair in pairs]
    close = [each for each in distances if each is not None]
    return max(close, default=0.0) if len(close) == len(distances) else None
