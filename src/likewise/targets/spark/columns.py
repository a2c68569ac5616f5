"""The worker's side of the UDF and of frames: Arrow batches in, predictions out, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from likewise.core.extras import need
from likewise.core.items import Item, Params
from likewise.core.results import Failed
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.targets.spark.predictions import arrow_array, values_and_errors
from likewise.targets.spark.windows import items_of, row_maker, windows
from likewise.targets.spark.worker import engine_of, score_windows

ERROR = "error"  # the column of a frame with the reason why a row has no prediction


def predict_columns(
    batches: Iterator[Any],
    folder: str | None,
    key: str,
    model: ModelSpec,
    signature: Signature,
    params: Params,
    kind: Any,
    on_error: str,
) -> Iterator[Any]:
    """The UDF: one array of predictions per window of argument columns, rows in order.

    batches: a `pyarrow.Array` each if the UDF has one argument, else a tuple of them.
    """
    pa = need("pyarrow", extra="batch")
    engine = engine_of(key, model, folder)
    tables = (_named_batch(pa, args if isinstance(args, tuple) else (args,), signature) for args in batches)
    for _, results in score_windows(engine, _items_by_window(tables, signature, {}, params)):
        yield arrow_array(results, kind, on_error)


def _items_by_window(
    batches: Iterator[Any], signature: Signature, mapping: Mapping[str, str], params: Params
) -> Iterator[tuple[list[Any], list[Item | Failed]]]:
    """Each window of the batches with the items for the engine."""
    for window in windows(batches):
        schema = window[0].schema
        yield window, items_of(window, row_maker(schema.names, signature, mapping, schema), params)


def _named_batch(pa: Any, arrays: tuple[Any, ...], signature: Signature) -> Any:
    """The arguments as a batch: fields of a single struct by name, else in the order of the signature's columns."""
    if len(arrays) == 1 and pa.types.is_struct(arrays[0].type):
        return pa.RecordBatch.from_struct_array(arrays[0])
    names = signature.columns or tuple(str(index) for index in range(len(arrays)))
    used = arrays[: len(names)]
    return pa.RecordBatch.from_arrays(list(used), names=list(names[: len(used)]))


def extend_frame(
    batches: Iterator[Any],
    folder: str | None,
    key: str,
    model: ModelSpec,
    signature: Signature,
    params: Params,
    kind: Any,
    mapping: Mapping[str, str],
    name: str,
) -> Iterator[Any]:
    """For `mapInArrow`: append the columns `name` and `error` to each row; rows in order."""
    pa = need("pyarrow", extra="batch")
    engine = engine_of(key, model, folder)
    reason = pa.struct([(each, pa.string()) for each in ("code", "cause", "remedy")])
    for window, results in score_windows(engine, _items_by_window(batches, signature, mapping, params)):
        values, errors = values_and_errors(results, kind)
        start = 0
        for piece in window:
            end = start + piece.num_rows
            added = [pa.array(values[start:end], kind), pa.array(errors[start:end], reason)]
            names = [*piece.schema.names, name, ERROR]
            yield pa.RecordBatch.from_arrays([*piece.columns, *added], names=names)
            start = end
