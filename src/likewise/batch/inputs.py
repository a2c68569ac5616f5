"""The input of a job, as runners see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from likewise.batch.files import InputFile


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


class Input(Protocol):
    """What a job reads.

    format: of the files.  textual: every value is text.  size: bytes, None if unknown.  numbered_on: rows are numbered
    across all parts instead of within each.  files: those that this process can see.  identity: changes when the
    content changes, as far as this can be detected.
    """

    format: str
    textual: bool
    size: Any
    numbered_on: bool

    @property
    def files(self) -> Sequence[InputFile]: ...

    @property
    def identity(self) -> object: ...

    def described(self, output: str) -> InputColumns:
        """The columns, with types if the format `output` needs them."""

    def cut(self, workers: Any, rows: int, folder: str) -> Sequence[Mapping[str, Any]]:
        """Let workers write chunk files of at most `rows` rows to `folder`; the tasks' result for each part."""
