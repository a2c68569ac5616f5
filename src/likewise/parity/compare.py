"""Two answers to one row: the same, as good as the same, or different."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that a place would not answer. code: its own word for why; refusals agree whatever their codes."""

    code: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is answered in two ways. row: counted from 0. here, there: as JSON, cut short."""

    row: int
    here: str
    there: str


SHOWN = 300  # characters of an answer


def distance(here: object, there: object, tolerance: float) -> float | None:
    """0 where both are the same, the largest difference of two numbers where all are close, None where they differ.

    Numbers are close within `tolerance`, relatively where they are larger than 1. Text that holds a JSON document is
    compared as that document where it is not the same to the letter: probabilities in it may be close.
    """
    if isinstance(here, RefusedRow) or isinstance(there, RefusedRow):
        return 0.0 if isinstance(here, RefusedRow) and isinstance(there, RefusedRow) else None
    if _is_number(here) and _is_number(there):
        return _apart(float(here), float(there), tolerance)  # type: ignore[arg-type]
    if isinstance(here, str) and isinstance(there, str):
        return _texts(here, there, tolerance)
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        if here.keys() != there.keys():
            return None
        return _largest([(here[key], there[key]) for key in here], tolerance)
    if isinstance(here, list) and isinstance(there, list):
        return _largest(list(zip(here, there, strict=True)), tolerance) if len(here) == len(there) else None
    return 0.0 if type(here) is type(there) and here == there else None


def shown(answer: object) -> str:
    """An answer in a line."""
    if isinstance(answer, RefusedRow):
        return f"refused: {answer.code}"
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _apart(here: float, there: float, tolerance: float) -> float | None:
    apart = abs(here - there)
    if here == there or (math.isnan(here) and math.isnan(there)):
        return 0.0
    return apart if apart <= tolerance * max(1.0, abs(here), abs(there)) else None


def _texts(here: str, there: str, tolerance: float) -> float | None:
    if here == there:
        return 0.0
    documents = _document(here), _document(there)
    if None in documents:
        return None
    return distance(*documents, tolerance)


def _document(text: str) -> object:
    """The object or list that the text is in JSON; None where it is neither."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _largest(pairs: Sequence[tuple[object, object]], tolerance: float) -> float | None:
    apart = [distance(*pair, tolerance) for pair in pairs]
    close = [found for found in apart if found is not None]
    return max(close, default=0.0) if len(close) == len(apart) else None
