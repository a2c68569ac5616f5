"""Serialization of a chunk of rows, with everything that its reader recorded: faults, lines, invalid Unicode."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from likewise.batch.formats import Chunk
from likewise.batch.values import as_some_json
from likewise.core.arrow import records_of
from likewise.core.errors import LikewiseError
from likewise.core.extras import need


def encode(chunk: Chunk) -> tuple[dict[str, object], bytes, bytes]:
    """A header (file, first row, row count), a body of ASCII JSON, and the rows as an Arrow stream or empty bytes."""
    pa = need("pyarrow", extra="batch")
    arrow = chunk.native if isinstance(chunk.native, pa.RecordBatch) else None
    body = {
        "faults": {index: error.as_dict() for index, error in chunk.faults.items()},
        "faulty": {index: json.loads(as_some_json(chunk.records[index])) for index in chunk.faults},
        "lines": None if chunk.lines is None else list(chunk.lines),
        "native": chunk.native if arrow is None else None,
        "offset": chunk.offset,
        **({} if arrow is not None or chunk.native is not None else _values(chunk)),
    }
    header = {"file": chunk.file, "first": chunk.first, "rows": len(chunk)}
    return header, json.dumps(body).encode(), b"" if arrow is None else _ipc(pa, arrow)


def decode(header: Mapping[str, Any], body: bytes, arrow: bytes) -> Chunk:
    """The chunk that `encode` serialized."""
    fields = json.loads(body)
    faulty = {int(index): record for index, record in fields["faulty"].items()}
    batch = need("pyarrow", extra="batch").ipc.open_stream(arrow).read_next_batch() if arrow else None
    good = iter(_records(fields, batch, faulty, header["rows"]))
    return Chunk(
        file=header["file"],
        first=header["first"],
        records=[faulty[index] if index in faulty else next(good) for index in range(header["rows"])],
        faults={int(index): LikewiseError.from_dict(error) for index, error in fields["faults"].items()},
        lines=fields["lines"],
        native=fields["native"] if batch is None else batch,
        offset=fields["offset"],
    )


def _records(
    fields: Mapping[str, Any], batch: Any, faulty: Mapping[int, object], rows: int
) -> Iterator[Mapping[str, object]]:
    """The rows without a fault, in order."""
    if batch is not None:
        good = [index for index in range(rows) if index not in faulty]
        selected = batch if not faulty else batch.take(need("pyarrow", extra="batch").array(good, "int64"))
        yield from records_of(selected)[0]
    elif fields["native"] is not None:
        yield from (json.loads(line) for index, line in enumerate(fields["native"]) if index not in faulty)
    else:
        yield from (dict(zip(fields["columns"], values, strict=True)) for values in fields["values"])


def _values(chunk: Chunk) -> dict[str, object]:
    """The rows without a fault: column names once, values by row."""
    valid = [record for index, record in enumerate(chunk.records) if index not in chunk.faults]
    return {"columns": list(valid[0]) if valid else [], "values": [list(record.values()) for record in valid]}


def _ipc(pa: Any, batch: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as stream:
        stream.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data
