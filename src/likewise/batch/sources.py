"""Where the rows come from: one file; its format by suffix or by name."""

from __future__ import annotations

import stat
from pathlib import Path

from likewise.batch.formats import PREDICTIONS, Source, load, of_path
from likewise.core.errors import InputInvalid, InputNotFound


def open_source(path: Path, format_name: str | None = None) -> Source:
    """The file as a stream of chunks.

    InputNotFound where it cannot be opened, InputInvalid where it is not what its format says or already has a column
    `predictions`, WrongUsage where neither suffix nor `format_name` tells the format.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open("rb").close()
    except OSError as error:
        raise InputNotFound(f"{path}: {error.strerror}", remedy="check the path and its permissions") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise InputNotFound(f"{path} is {kind}", remedy="name one CSV, JSON lines or Parquet file")
    source: Source = load(format_name or of_path(path)).open_source(path)
    if PREDICTIONS in source.columns:
        raise predictions_taken(str(path))
    return source


def predictions_taken(where: str) -> InputInvalid:
    """The error for an input that already has the column that a job adds."""
    return InputInvalid(
        f"{where} already has a column `{PREDICTIONS}`", remedy="rename or drop that column of the input"
    )
