"""Encoding of predictions as an `infer` response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from likewise.core.errors import BadRequest
from likewise.core.json_values import json_form
from likewise.core.signature import Signature
from likewise.wire.jsontext import SHOWN, nearest
from likewise.wire.oip.call import InferCall
from likewise.wire.oip.datatypes import to_binary
from likewise.wire.oip.outputs import OutputTensor, output_tensors, unwritable


def encode_infer(
    call: InferCall, predictions: object, signature: Signature, *, model_name: str, model_version: str | None
) -> tuple[bytes, int | None]:
    """The response body, and the length of its JSON in bytes if binary tensors follow it (else None).

    `predictions`: one per row, or any return value of a model that is not row-wise: records, a mapping of columns,
    nested lists, a single value.  In JSON, NaN and infinity are null, and bytes are base64 with a `content_type`.
    Raises BadRequest if a requested output does not exist, and ModelFailed for values that cannot be encoded.
    """
    outputs, tail = [], []
    for tensor, binary in _chosen(call, output_tensors(predictions, signature)):
        data = _tail(tensor) if binary else None
        outputs.append(_described(tensor, data))
        if data is not None:
            tail.append(data)
    response = {"model_name": model_name, "model_version": model_version, "id": call.id, "outputs": outputs}
    try:
        header = orjson.dumps({key: value for key, value in response.items() if value is not None}, default=json_form)
    except TypeError as error:  # orjson's JSONEncodeError is one
        raise unwritable(error) from error
    return b"".join([header, *tail]), len(header) if tail else None


def _chosen(call: InferCall, tensors: Sequence[OutputTensor]) -> list[tuple[OutputTensor, bool]]:
    """The requested outputs, in order, and whether each is binary."""
    if not call.outputs:
        return [(tensor, call.binary_output) for tensor in tensors]
    by_name = {tensor.name: tensor for tensor in tensors}
    for name in call.outputs:
        if name not in by_name:
            near = nearest(name, by_name)
            raise BadRequest(
                f"outputs: the model has no output {name[:SHOWN]!r}; it has: {', '.join(map(repr, by_name))}",
                remedy=f"request {near!r}" if near else "omit outputs to get all of them",
            )
    return [(by_name[name], call.binary_output if binary is None else binary) for name, binary in call.outputs.items()]


def _described(tensor: OutputTensor, data: bytes | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
    raw = any(isinstance(value, bytes) for value in tensor.values)
    if data is not None:
        return entry | {"parameters": {"binary_data_size": len(data)}}
    if raw:
        entry["parameters"] = {"content_type": "base64"}
    return entry | {"data": tensor.values}


def _tail(tensor: OutputTensor) -> bytes:
    try:
        return to_binary(tensor.datatype, tensor.values)
    except UnicodeEncodeError as error:
        raise unwritable(error) from error
