"""Spark's `timestamp` columns as models take them: without a time zone, in that of the session, as `spark_udf` does.

Arrow batches from Spark name the session's time zone in the type of such a column.
"""

from __future__ import annotations

from typing import Any

from likewise.core.arrow import changed, with_types
from likewise.core.extras import need


def local_batch(batch: Any, zone: str | None = None) -> Any:
    """The `pyarrow.RecordBatch` with naive local times, also in nested values; the same batch if it has no zoned ones.

    zone: the session's time zone, for a batch whose types name another.
    Raises pyarrow's ArrowInvalid if this machine does not know the time zone.
    """
    schema = local_schema(batch.schema)
    if schema.equals(batch.schema):
        return batch
    columns = [_local(array, zone) for array in batch.columns]
    return need("pyarrow", extra="batch").RecordBatch.from_arrays(columns, schema=schema)


def local_schema(schema: Any) -> Any:
    """The schema of `local_batch`."""
    return with_types(schema, _naive)


def _naive(kind: Any) -> Any:
    pa = need("pyarrow", extra="batch")
    return pa.timestamp(kind.unit) if pa.types.is_timestamp(kind) else kind


def _local(array: Any, zone: str | None) -> Any:
    pa = need("pyarrow", extra="batch")
    kind, local = array.type, changed(array.type, _naive)
    if local.equals(kind):
        return array
    if pa.types.is_timestamp(kind):
        zoned = array if zone is None else array.cast(pa.timestamp(kind.unit, zone))
        return need("pyarrow.compute", extra="batch").local_timestamp(zoned)
    absent = array.is_null() if array.null_count else None
    if pa.types.is_struct(kind):
        members = [_local(member, zone) for member in (array.field(index) for index in range(kind.num_fields))]
        return pa.StructArray.from_arrays(members, fields=list(local), mask=absent)
    offsets = pa.array(array.offsets.to_pylist(), "int32")  # a slice of a longer buffer is not accepted with a mask
    if pa.types.is_map(kind):
        return pa.MapArray.from_arrays(offsets, _local(array.keys, zone), _local(array.items, zone), local, mask=absent)
    return pa.ListArray.from_arrays(offsets, _local(array.values, zone), local, mask=absent)
