"""A data frame as the input of a job: written to a Parquet file next to the output, which is deleted at the end."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from likewise.batch.layout import Layout, write_errors
from likewise.core.errors import InputInvalid
from likewise.core.extras import need
from likewise.core.private_files import write_private


@contextmanager
def as_input(source: Any, output: Path) -> Iterator[str]:
    """The input's path: `source` itself, or the file of a pandas, Polars or PyArrow table, without a pandas index.

    The file's name and time depend only on its content, so the same call resumes an interrupted job; until then the
    file stays.  Raises InputInvalid for a table that Parquet cannot represent, OutputRefused if it cannot be written.
    """
    if isinstance(source, (str, os.PathLike)):
        yield os.fspath(source)
        return
    content = _parquet(source)
    layout = Layout.of(output)
    folder = layout.staging.absolute().parent
    path = folder / f".{output.name}.{hashlib.sha256(content).hexdigest()[:16]}.parquet"
    with write_errors(layout.data):
        write_private(path, content)
        os.utime(path, (0, 0))
    del content  # not kept in memory during the job
    try:
        yield str(path)
    finally:
        if not layout.staging.exists():  # also those of jobs that this one has replaced
            for each in folder.glob(f".{glob.escape(output.name)}.{'[0-9a-f]' * 16}.parquet"):
                each.unlink(missing_ok=True)


def _parquet(frame: Any) -> bytes:
    pyarrow, parquet = need("pyarrow", extra="batch"), need("pyarrow.parquet", extra="batch")
    try:
        if hasattr(frame, "iloc"):
            frame = frame.to_frame() if frame.ndim == 1 else frame
            table = pyarrow.Table.from_pandas(frame, preserve_index=False)
        else:
            table = frame.to_arrow() if hasattr(frame, "to_arrow") else pyarrow.table(frame)
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(table, sink)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise InputInvalid(
            f"the {type(frame).__name__} cannot be written as Parquet: {error}",
            remedy="pass the path of a file, or a table with unique column names and one type per column",
        ) from error
    return bytes(sink.getvalue().to_pybytes())
