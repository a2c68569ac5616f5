"""The names of the columns of CSV files: from a header, from the model, or by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from likewise.core.errors import InputInvalid, WrongUsage
from likewise.core.header import is_row, positions
from likewise.core.signature import Signature

CHOICES: Mapping[str | None, bool | None] = {None: None, "present": True, "absent": False}


def check_choice(header: str | None) -> None:
    """Raise WrongUsage if the option `header` is not one of CHOICES."""
    if header not in CHOICES:
        raise WrongUsage(f"header is {header!r}", remedy="use --header present or --header absent")


@dataclass(frozen=True, slots=True)
class Header:
    """Whether CSV files have a header, and the names of their columns if not.

    present: None if the user does not say; there is one then, and a first line that cannot be one is an error.
    columns: the model's, None if it names none or the user assigns the file's columns to them.  known: names that are
    certainly not in a row.  optional: whether a file without any of the model's columns would be accepted.
    """

    present: bool | None = True
    columns: tuple[str, ...] | None = None
    known: frozenset[str] = frozenset()
    optional: bool = False

    @classmethod
    def of(cls, choice: str | None, signature: Signature, mapping: Mapping[str, str]) -> Header:
        """choice: one of CHOICES. mapping: input column to model column."""
        columns = signature.columns
        optional = columns is not None and not mapping and not any(field.required for field in signature.inputs or ())
        known = frozenset([*(columns or ()), *mapping])
        return cls(CHOICES[choice], None if mapping else columns, known, optional)

    def names(self, first: Sequence[str], where: str) -> tuple[str, ...]:
        """The names of the columns of a file whose first line has the fields `first`. where: the file, for messages.

        Raises InputInvalid.
        """
        if self.present is False:
            return self._without_header(first, where)
        if self.present is None and not self.known.intersection(first) and (self.optional or is_row(first)):
            raise InputInvalid(
                f"{where}: the first line seems to be a row, not the names of the columns: {','.join(first)[:100]!r}",
                remedy="add --header absent if it is a row, else --header present",
            )
        return tuple(first)

    def _without_header(self, first: Sequence[str], where: str) -> tuple[str, ...]:
        if self.columns is None:
            return positions(len(first))
        if len(self.columns) != len(first):
            raise InputInvalid(
                f"{where} has {len(first)} fields in its first line, but the model has the columns "
                f"{', '.join(self.columns)}",
                remedy=f"assign columns by their position, from 0: --column 0={self.columns[0]}",
            )
        return self.columns
