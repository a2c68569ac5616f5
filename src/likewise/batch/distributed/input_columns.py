"""The columns of a job's input, for code that does not read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class InputColumns:
    """The part of a `Source` that row makers and writers use: the columns, by default those of a frame.

    types: a `pyarrow.Schema`; None if the output needs none.  zone: the time zone in which the model takes the times of
    a table; None for files.
    """

    columns: tuple[str, ...]
    name: str = "the frame"
    format: str = "parquet"
    textual: bool = False
    types: Any = None
    zone: str | None = None

    @property
    def parts(self) -> tuple[InputColumns, ...]:
        """This object: one frame, or files whose columns the driver has compared."""
        return (self,)

    def schema(self) -> Any:
        """All columns with their types."""
        return self.types
