"""The worker's side of the UDF and of frames: Arrow batches in, predictions out, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from likewise.core.casts import INTEGERS
from likewise.core.errors import InputInvalid
from likewise.core.extras import need
from likewise.core.items import Item, Params
from likewise.core.results import Failed
from likewise.core.signature import Field, Signature
from likewise.core.spec import ModelSpec
from likewise.core.tensors import shape_of
from likewise.targets.spark.predictions import ResultType, arrow_array, values_and_errors
from likewise.targets.spark.windows import items_of, row_maker, windows
from likewise.targets.spark.worker import Loading, engine_of, environment_of, score_windows

TYPED = Loading(typed=True)
ERROR = "error"  # the column of a frame with the reason why a row has no prediction


def predict_columns(
    batches: Iterator[Any],
    folder: str | None,
    key: str,
    model: ModelSpec,
    signature: Signature,
    params: Params,
    kind: ResultType,
    on_error: str,
    loading: Loading,
) -> Iterator[Any]:
    """The UDF: one array of predictions per window of argument columns, rows in order.

    batches: a `pyarrow.Array` each if the UDF has one argument, else a tuple of them.
    """
    with environment_of(loading):
        engine = engine_of(key, model, folder, loading)
        tables = (named_batch(args if isinstance(args, tuple) else (args,), signature) for args in batches)
        for _, results in score_windows(engine, _items_by_window(tables, signature, {}, params)):
            yield arrow_array(results, kind, on_error)


def _items_by_window(
    batches: Iterator[Any], signature: Signature, mapping: Mapping[str, str], params: Params
) -> Iterator[tuple[list[Any], list[Item | Failed]]]:
    """Each window of the batches with the items for the engine."""
    for window in windows(batches):
        yield window, items_of(window, row_maker(window[0].schema, signature, mapping, params))


def named_batch(arrays: tuple[Any, ...], signature: Signature) -> Any:
    """The arguments as a `pyarrow.RecordBatch`: fields of a single struct by name, else in the signature's order.

    Columns after the signature's last are ignored, and optional ones that are missing are null, as in `spark_udf`
    (integers, which cannot be null, are left out).  Without a signature the names are ordinals.  Arrays for tensors are
    reshaped.  Raises InputInvalid for too few.
    """
    pa = need("pyarrow", extra="batch")
    if len(arrays) == 1 and pa.types.is_struct(arrays[0].type):
        return pa.RecordBatch.from_struct_array(arrays[0])
    fields = signature.inputs
    if not fields:
        return pa.RecordBatch.from_arrays(list(arrays), names=[str(index) for index in range(len(arrays))])
    names = signature.columns or tuple(str(index) for index in range(1 if signature.is_tensor else len(fields)))
    required = [field for field in fields[: len(names)] if field.required]
    if len(arrays) < len(required):
        raise InputInvalid(
            f"the model needs {len(required)} columns ({', '.join(names)}), but the UDF was called with {len(arrays)}",
            remedy="pass the columns in that order, or as one struct with these names",
        )
    used = [_reshaped(array, field) for array, field in zip(arrays, fields[: len(names)], strict=False)]
    absent = [name for name, field in zip(names[len(used) :], fields[len(used) :], strict=False) if _takes_null(field)]
    nulls = [pa.nulls(len(arrays[0]))] * len(absent)
    return pa.RecordBatch.from_arrays([*used, *nulls], names=[*names[: len(used)], *absent])


def _takes_null(field: Field) -> bool:
    return field.kind not in INTEGERS and field.kind != "tensor"


def _reshaped(array: Any, field: Field) -> Any:
    """A column of flat arrays, or of single values, as arrays of the tensor's shape, in C order; else unchanged."""
    pa = need("pyarrow", extra="batch")
    shape = list(shape_of(field)[1:])
    if shape == [1] and not pa.types.is_nested(array.type):
        return pa.ListArray.from_arrays(pa.array(range(len(array) + 1), pa.int32()), array)
    flat = pa.types.is_list(array.type) and not pa.types.is_nested(array.type.value_type)
    if len(shape) < 2 or not flat or any(size < 1 for size in shape[1:]):
        return array
    size = math.prod(shape[1:])
    values = array.flatten()
    rows = [0]
    for length in need("pyarrow.compute", extra="batch").list_value_length(array).to_pylist():
        if length is None or length % size or (shape[0] > 0 and length != size * shape[0]):
            raise InputInvalid(
                f"an array of {length or 0} values does not have the shape {shape} of the model's tensor",
                remedy="pass arrays with as many values as the tensor has",
            )
        rows.append(rows[-1] + length // size)
    for count in reversed(shape[1:]):
        values = pa.ListArray.from_arrays(pa.array(range(0, len(values) + 1, count), pa.int32()), values)
    return pa.ListArray.from_arrays(pa.array(rows, pa.int32()), values)


def extend_frame(
    batches: Iterator[Any],
    folder: str | None,
    key: str,
    model: ModelSpec,
    signature: Signature,
    params: Params,
    kind: ResultType,
    mapping: Mapping[str, str],
    name: str,
) -> Iterator[Any]:
    """For `mapInArrow`: append the columns `name` and `error` to each row; rows in order."""
    pa = need("pyarrow", extra="batch")
    engine = engine_of(key, model, folder, TYPED)
    reason = pa.struct([(each, pa.string()) for each in ("code", "cause", "remedy")])
    for window, results in score_windows(engine, _items_by_window(batches, signature, mapping, params)):
        values, errors = values_and_errors(results, kind)
        start = 0
        for piece in window:
            end = start + piece.num_rows
            added = [pa.array(values[start:end], kind.kind), pa.array(errors[start:end], reason)]
            names = [*piece.schema.names, name, ERROR]
            yield pa.RecordBatch.from_arrays([*piece.columns, *added], names=names)
            start = end
