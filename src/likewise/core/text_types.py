"""Types of columns that no signature declares: inferred from all values of a column, as pandas does.

Used for CSV and JSON in requests and in jobs, so that the same rows mean the same in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from likewise.core.casts import EXACT, Mismatch, to_boolean, to_double, to_whole
from likewise.core.fields import ABSENT


def is_absent(text: str) -> bool:
    """Whether the text stands for a missing value in a column that is not text."""
    return text.strip().lower() in ABSENT


class TextType:
    """The type of one column, narrowed by `add`; the order in which values are added does not matter."""

    def __init__(self) -> None:
        self._possible = ["boolean", "long", "double"]
        self._present = self._absent = self._inexact = False

    def add(self, values: Iterable[str]) -> None:
        """Take more values of the column into account."""
        if not self._possible:  # text, whatever follows
            return
        listed = list(values)
        present = [value for value in listed if not is_absent(value)]
        self._present = self._present or bool(present)
        self._absent = self._absent or len(present) < len(listed)
        self._possible = [kind for kind in self._possible if self._has_all(kind, present)]

    @property
    def kind(self) -> str:
        """`boolean`, `long`, `double` or `string`, as MLflow names them; `double` if all values are missing.

        Integers with missing values among them are `double` if that represents all of them exactly.
        """
        kind = self._possible[0] if self._possible else "string"
        as_double = kind == "long" and self._absent and not self._inexact
        return "double" if as_double or not self._present else kind

    def _has_all(self, kind: str, values: Sequence[str]) -> bool:
        parse = PARSERS[kind]
        try:
            numbers = [parse(value) for value in values]
        except Mismatch:
            return False
        if kind == "long":
            self._inexact = self._inexact or any(isinstance(n, int) and abs(n) > EXACT for n in numbers)
        return True


def typed(text: str, kind: str) -> object:
    """The text as a value of a column of this kind; missing, NaN as a `double`, else None. Text is unchanged."""
    if kind == "string":
        return text
    if is_absent(text):
        return math.nan if kind == "double" else None
    return PARSERS[kind](text)


def _to_boolean(text: str) -> bool:
    return to_boolean(text if text.strip().lower() in ("true", "false") else None)


PARSERS: dict[str, Callable[[str], object]] = {"boolean": _to_boolean, "long": to_whole, "double": to_double}


class MissingNumbers:
    """Whether a column of JSON, whose type no signature declares, has null among numbers that are exact as double.

    pandas makes such a column one of doubles, and null NaN; the order in which values are added does not matter.
    """

    def __init__(self) -> None:
        self._present = self._absent = False
        self._numbers = True

    def add(self, values: Iterable[object]) -> None:
        """Take more values of the column into account."""
        for value in values:
            if value is None:
                self._absent = True
            elif type(value) is float or (type(value) is int and abs(value) <= EXACT):
                self._present = True
            else:
                self._numbers = False

    @property
    def found(self) -> bool:
        """Whether the values are to be converted by `as_double`."""
        return self._numbers and self._present and self._absent


def as_double(value: Any) -> float:
    """A value of such a column."""
    return math.nan if value is None else float(value)
