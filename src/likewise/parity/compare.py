"""Compares two predictions of one row: identical, close, or different at a path."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from likewise.core.text import json_document
from likewise.wire import Form, encode

SHOWN = 300  # characters of a value that are shown
PREDICTION = "prediction"  # the path of the whole


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that a backend refused to predict. code, why: the backend's error; refusals agree whatever their errors."""

    code: str
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest difference between two numbers that counts as close; relative for numbers above 1.

    columns: other tolerances for parts of the prediction, by path without indices: `score`, `response.probability`.
    base: path of what is compared, if it is a part of the prediction.  Whole numbers are classes, counts or ids: unless
    their part has its own tolerance, they have to be equal.
    """

    everywhere: float = 0.0
    columns: Mapping[str, float] = field(default_factory=dict)
    base: tuple[str, ...] = ()

    def at(self, path: Sequence[str | int], *, whole: bool = False) -> float:
        """The tolerance at `path`: that of the longest part of it that has its own, from the start."""
        usual = 0.0 if whole else self.everywhere
        if not self.columns:
            return usual
        names = [*self.base, *(each for each in path if isinstance(each, str))]
        parts = (".".join(names[:end]) for end in range(len(names), 0, -1))
        return next((self.columns[part] for part in parts if part in self.columns), usual)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first part in which two predictions differ.  path: such as `response.prediction_label[0]`."""

    path: str
    here: str
    there: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A row whose predictions differ.

    row: counted from 0.  given: the row, as JSON, shortened.  path: of the first part that differs; here, there: this
    part on this machine and on the backend.  step: the first step of a pipeline that differs, if known.
    """

    row: int
    given: str
    path: str
    here: str
    there: str
    step: str | None = None

    def __str__(self) -> str:
        return f"row {self.row}, {self.path}: {self.here} ≠ {self.there}"


Parts = tuple[str | int, ...]
_MISSING = object()


def compare(here: object, there: object, tolerance: Tolerance, path: Parts = ()) -> float | Mismatch:
    """0 if both are equal, the largest difference between numbers if all are close, else the first mismatch.

    Texts that are not equal but contain JSON documents are compared as documents, so probabilities in them may be
    close.
    """
    if isinstance(here, RefusedRow) or isinstance(there, RefusedRow):
        both = isinstance(here, RefusedRow) and isinstance(there, RefusedRow)
        return 0.0 if both else _mismatch(path, here, there)
    if _is_number(here) and _is_number(there):
        whole = isinstance(here, int) and isinstance(there, int)
        distance = _distance(here, there, tolerance.at(path, whole=whole))  # type: ignore[arg-type]
        return _mismatch(path, here, there) if distance is None else distance
    if isinstance(here, str) and isinstance(there, str):
        return _texts(here, there, tolerance, path)
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        keys = [*here, *(key for key in there if key not in here)]
        members = ((here.get(key, _MISSING), there.get(key, _MISSING), str(key)) for key in keys)
        return _largest(members, tolerance, path)
    if isinstance(here, list) and isinstance(there, list):
        if len(here) != len(there):
            return Mismatch(_written(path), _entries(here), _entries(there))
        return _largest(((*pair, index) for index, pair in enumerate(zip(here, there, strict=True))), tolerance, path)
    return 0.0 if type(here) is type(there) and here == there else _mismatch(path, here, there)


def via_json(value: object) -> object:
    """A prediction as a client receives it: encoded to JSON and decoded again."""
    return value if isinstance(value, RefusedRow) else json.loads(encode(Form.DOCUMENT, value))


def paths(value: object, path: tuple[str, ...] = ()) -> set[str]:
    """The paths of all parts of a prediction that have a name, without indices."""
    if isinstance(value, str):
        value = json_document(value)
    if isinstance(value, list):
        return {each for member in value for each in paths(member, path)}
    if not isinstance(value, Mapping):
        return set()
    found = {".".join((*path, str(name))) for name in value}
    return found.union(*(paths(member, (*path, str(name))) for name, member in value.items()))


def shown(value: object) -> str:
    """A value as one line of text, shortened."""
    if isinstance(value, RefusedRow):
        return f"refused: {value.code}{': ' + value.why if value.why else ''}"[:SHOWN]
    if value is _MISSING:
        return "missing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _entries(value: Sequence[object]) -> str:
    return f"{len(value)} entries: {shown(value)}"


def _mismatch(path: Parts, here: object, there: object) -> Mismatch:
    """Shows text in quotes if the other value, which is not text, would look the same."""
    mine, theirs = shown(here), shown(there)
    if mine == theirs:
        mine, theirs = (f"{json.dumps(v)[:SHOWN]}" if isinstance(v, str) else repr(v)[:SHOWN] for v in (here, there))
    return Mismatch(_written(path), mine, theirs)


def _written(path: Parts) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier():
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text or PREDICTION


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _distance(here: float, there: float, tolerance: float) -> float | None:
    """The difference if it is within the tolerance."""
    if here == there or (here != here and there != there):
        return 0.0
    if isinstance(here, int) and isinstance(there, int) and not tolerance:
        return None  # also integers that a float cannot hold
    try:
        difference = abs(float(here) - float(there))
    except OverflowError:  # of an integer
        return None
    close = math.isfinite(difference) and difference <= tolerance * max(1.0, abs(here), abs(there))
    return difference if close else None


def _texts(here: str, there: str, tolerance: Tolerance, path: Parts) -> float | Mismatch:
    if here == there:
        return 0.0
    documents = json_document(here), json_document(there)
    if None in documents:
        return _mismatch(path, here, there)
    return compare(*documents, tolerance, path)


def _largest(pairs: Iterable[tuple[object, object, str | int]], tolerance: Tolerance, path: Parts) -> float | Mismatch:
    largest = 0.0
    for here, there, part in pairs:
        found = compare(here, there, tolerance, (*path, part))
        if isinstance(found, Mismatch):
            return found
        largest = max(largest, found)
    return largest
