"""Decoding of Parquet bodies, within limits of size, memory and time."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from likewise.core.errors import BadRequest, MissingExtra, UnsupportedContentType
from likewise.core.extras import need
from likewise.core.signature import Signature
from likewise.wire.frame import Frame
from likewise.wire.parquet_child import TOO_LARGE

LIMIT_BYTES = 64 * 2**20  # decompressed size of the values; a body of a few bytes can decompress to terabytes
MEMORY_BYTES = 2**30
SECONDS = 30

_CHILD_SCRIPT = Path(__file__).with_name("parquet_child.py")


def parse_parquet(body: bytes, signature: Signature) -> Frame:
    """Decode a Parquet file, without the columns that pandas wrote as its index.

    The file is read in a child process, because some inputs crash Arrow; this takes about 0.3 s.  Raises BadRequest
    (not Parquet, or more than LIMIT_BYTES of values) and UnsupportedContentType (pyarrow is not installed).
    """
    try:
        pyarrow = need("pyarrow", extra="batch")
    except MissingExtra as error:
        raise UnsupportedContentType(f"Parquet is not supported: {error.cause}", remedy="send JSON or CSV") from error
    table = pyarrow.ipc.open_stream(_read(body)).read_all()
    kinds = {str(field.name): field.kind for field in signature.inputs or ()}
    names = tuple(table.schema.names)
    try:
        columns = [_values(pyarrow, table.column(at), kinds.get(name)) for at, name in enumerate(names)]
        rows = list(zip(*columns, strict=True)) if columns else []
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise _unreadable(str(error)) from error
    return Frame(names, rows, "the Parquet body")


def _read(body: bytes) -> bytes:
    """Convert the file to an Arrow stream in a child process."""
    argv = [sys.executable, "-I", str(_CHILD_SCRIPT), str(LIMIT_BYTES), str(MEMORY_BYTES)]
    environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(argv, input=body, capture_output=True, timeout=SECONDS, env=environment, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unreadable(f"reading it takes longer than {SECONDS} seconds") from error
    output = done.stderr.decode(errors="replace").strip()
    if done.returncode == TOO_LARGE:
        raise BadRequest(
            f"the Parquet body decompresses to {int(output) // 2**20} MiB; the limit is {LIMIT_BYTES // 2**20} MiB",
            remedy="send fewer rows per request, or score the file as a batch job: likewise score",
        )
    if done.returncode != 0:
        raise _unreadable(output.rpartition("\n")[2])
    return done.stdout


def _values(pyarrow: Any, column: Any, kind: str | None) -> Iterator[object]:
    if pyarrow.types.is_timestamp(column.type):  # datetime has a resolution of microseconds
        column = column.cast(pyarrow.timestamp("us", column.type.tz), safe=False)
    return (_value(value, kind) for value in column.to_pylist())


def _value(value: object, kind: str | None) -> object:
    """Convert a Parquet value to its JSON form for a column of this kind, which the casts of requests expect."""
    if kind == "datetime" and isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes) and kind == "binary":
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, bytes) and kind == "string":
        return value.decode()
    return float(value) if isinstance(value, Decimal) else value


def _unreadable(why: str) -> BadRequest:
    return BadRequest(
        f"the body is not a readable Parquet file: {why[:200]}",
        remedy="send a file written by DataFrame.to_parquet or pyarrow.parquet.write_table",
    )
