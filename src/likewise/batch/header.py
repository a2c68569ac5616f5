"""The names of the columns of CSV files: from a header, from the model, or by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from likewise.core.errors import InputInvalid, WrongUsage
from likewise.core.header import CHOICES, is_row, positions
from likewise.core.signature import Signature


def check_choice(header: str | None) -> None:
    """Raise WrongUsage if the option `header` is not one of CHOICES."""
    if header not in CHOICES:
        raise WrongUsage(f"header is {header!r}", remedy="use --header present or --header absent")


@dataclass(frozen=True, slots=True)
class Header:
    """Whether CSV files have a header, and the names of their columns if not.

    choice: one of CHOICES; if it is None, there is a header, and a first line that cannot be one is an error.  mapping:
    input column to model column.
    """

    choice: str | None = "present"
    signature: Signature = field(default_factory=Signature)
    mapping: Mapping[str, str] = field(default_factory=dict)

    @property
    def absent(self) -> bool:
        """Whether the first line is a row."""
        return self.choice == "absent"

    def names(self, first: Sequence[str], where: str) -> tuple[str, ...]:
        """The names of the columns of a file whose first line has the fields `first`. where: the file, for messages.

        Without a header they are those of the model, or "0", "1", … if it names none or the user assigns columns to it.
        Raises InputInvalid.
        """
        columns = None if self.mapping else self.signature.columns
        if self.absent:
            return positions(len(first)) if columns is None else _without_header(columns, first, where)
        known = {*(self.signature.columns or ()), *self.mapping}
        optional = columns is not None and not any(each.required for each in self.signature.inputs or ())
        if self.choice is None and not known.intersection(first) and (optional or is_row(first)):
            raise InputInvalid(
                f"{where}: the first line seems to be a row, not the names of the columns: {','.join(first)[:100]!r}",
                remedy="add --header absent if it is a row, else --header present",
            )
        return tuple(first)


def _without_header(columns: tuple[str, ...], first: Sequence[str], where: str) -> tuple[str, ...]:
    if len(columns) != len(first):
        raise InputInvalid(
            f"{where} has {len(first)} fields in its first line, but the model has the columns {', '.join(columns)}",
            remedy=f"assign columns by their position, from 0: --column 0={columns[0]}",
        )
    return columns


WITH_HEADER = Header()
