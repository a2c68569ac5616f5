"""Child process that converts one Parquet file on stdin to an Arrow stream on stdout, within a memory limit.

It runs as a script and imports no Likewise module.  A file that crashes Arrow or decompresses endlessly affects only
this process.  Arguments: limit for the size of the values, limit for memory, both in bytes, and limit for the number of
values.  Exit code 3: the values exceed the first limit; their size in bytes is on stderr.  4: there are more than the
last limit; their number is on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

TOO_LARGE = 3
TOO_MANY = 4
BATCH_ROWS = 1024
VALUE_BYTES = 8  # the minimum size assumed for a value


def main(limit: int, memory: int, cells: int) -> None:
    """Copy the file's columns, except those that pandas wrote as its index."""
    body = sys.stdin.buffer.read()
    import pyarrow
    import pyarrow.parquet

    _limit_memory(memory)
    file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(body))
    schema = file.metadata.schema
    leaves = [schema.column(i) for i in range(file.metadata.num_columns)]
    _check(_cells(file.metadata), cells, TOO_MANY)
    _check(_declared(file.metadata), limit)
    packed = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    total = 0
    shared = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(body), read_dictionary=packed)
    for batch in _batches(shared):
        total += sum(_unpacked(column) for column in batch.columns)
        _check(total, limit)
    index = {name for name in (file.schema_arrow.pandas_metadata or {}).get("index_columns", []) if type(name) is str}
    table = pyarrow.Table.from_batches(_batches(file), file.schema_arrow)
    columns = table.select([i for i, name in enumerate(table.schema.names) if name not in index])
    with pyarrow.ipc.new_stream(sys.stdout.buffer, columns.schema) as out:
        out.write_table(columns)


def _batches(file: Any) -> Iterator[Any]:
    """The rows of one row group after the other: Arrow cannot read lists with the dictionaries of several groups."""
    for group in range(file.num_row_groups):
        yield from file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group])


def _limit_memory(limit: int) -> None:
    try:
        import resource
    except ImportError:  # on Windows there is only the limit on values
        return
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _cells(metadata: Any) -> int:
    """The number of all values, including nulls, according to the file's footer, but at least one per row."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    values = sum(group.column(i).num_values for group in groups for i in range(metadata.num_columns))
    return int(max(values, metadata.num_rows))


def _declared(metadata: Any) -> int:
    """Size in bytes of all values, including nulls, according to the file's footer."""
    total = 0
    for group in (metadata.row_group(i) for i in range(metadata.num_row_groups)):
        for i in range(metadata.num_columns):
            width = max(VALUE_BYTES, metadata.schema.column(i).length)  # 0 unless the type has a fixed width
            chunk = group.column(i)
            total += max(chunk.num_values * width, chunk.total_uncompressed_size)
    return int(max(total, metadata.num_rows * VALUE_BYTES))


def _unpacked(array: Any) -> int:
    """Size in bytes of an array's values with dictionaries expanded."""
    from pyarrow import compute, types

    if types.is_dictionary(array.type):
        lengths = compute.binary_length(array.dictionary)
        return int(compute.sum(compute.take(lengths, array.indices)).as_py() or 0)
    if types.is_struct(array.type):
        return sum(_unpacked(member) for member in array.flatten())
    if types.is_map(array.type):
        return _unpacked(array.keys) + _unpacked(array.items)
    if types.is_nested(array.type):  # a list of some kind
        return _unpacked(array.flatten())
    return int(array.nbytes)


def _check(size: int, limit: int, code: int = TOO_LARGE) -> None:
    if size > limit:
        sys.stderr.write(str(size))
        sys.exit(code)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
