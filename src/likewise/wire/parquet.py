"""Decoding of Parquet bodies, within limits of size, memory and time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from likewise.core.arrow import records_of, schema_bytes
from likewise.core.casts import Source
from likewise.core.errors import BadRequest, MissingExtra, UnsupportedContentType
from likewise.core.extras import need
from likewise.wire.cells import Cells
from likewise.wire.frame import Frame
from likewise.wire.jsontext import UNLIMITED
from likewise.wire.parquet_child import TOO_LARGE, TOO_MANY

LIMIT_BYTES = 64 * 2**20  # decompressed size of the values; a body of a few bytes can decompress to terabytes
MEMORY_BYTES = 2**30
SECONDS = 30

_CHILD_SCRIPT = Path(__file__).with_name("parquet_child.py")


def parse_parquet(body: bytes, cells: Cells = UNLIMITED) -> Frame:
    """Decode a Parquet file, without the columns that pandas wrote as its index.

    The file is read in a child process, because some inputs crash Arrow; this takes about 0.3 s.  Raises BadRequest
    (not Parquet, or more than LIMIT_BYTES of values), TooManyCells and UnsupportedContentType (pyarrow is not
    installed).
    """
    try:
        pyarrow = need("pyarrow", extra="batch")
    except MissingExtra as error:
        raise UnsupportedContentType(f"Parquet is not supported: {error.cause}", remedy="send JSON or CSV") from error
    table = pyarrow.ipc.open_stream(_read(body, cells)).read_all()
    names = tuple(table.schema.names)
    rows: list[tuple[object, ...]] = []
    for batch in table.to_batches():
        records, faults = records_of(batch)
        if faults:
            raise _unreadable(faults[min(faults)].cause)
        rows += [tuple(record.values()) for record in records]
    return Frame(names, rows, "the Parquet body", Source.TYPED, schema_bytes(table.schema))


def _read(body: bytes, cells: Cells) -> bytes:
    """Convert the file to an Arrow stream in a child process."""
    argv = [
        sys.executable,
        "-I",
        str(_CHILD_SCRIPT),
        *map(str, (LIMIT_BYTES, MEMORY_BYTES, min(cells.limit, sys.maxsize))),
    ]
    environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(argv, input=body, capture_output=True, timeout=SECONDS, env=environment, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unreadable(f"reading it takes longer than {SECONDS} seconds") from error
    output = done.stderr.decode(errors="replace").strip()
    if done.returncode == TOO_MANY:
        cells.check(int(output), "the Parquet body")
    if done.returncode == TOO_LARGE:
        raise BadRequest(
            f"the Parquet body decompresses to {int(output) // 2**20} MiB; the limit is {LIMIT_BYTES // 2**20} MiB",
            remedy="send fewer rows per request, or score the file as a batch job: likewise score",
        )
    if done.returncode != 0:
        raise _unreadable(output.rpartition("\n")[2])
    return done.stdout


def _unreadable(why: str) -> BadRequest:
    return BadRequest(
        f"the body is not a readable Parquet file: {why[:200]}",
        remedy="send a file written by DataFrame.to_parquet or pyarrow.parquet.write_table",
    )
