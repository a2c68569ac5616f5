"""Helpers for tests of Open Inference Protocol v2: signatures, requests built by a real client, arbitrary JSON."""

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferResult
from tritonclient.utils import np_to_triton_dtype

from likewise.core.errors import BadRequest
from likewise.core.signature import Signature
from likewise.wire.oip import InferCall, decode_infer, encode_infer

DTYPES = {
    "BOOL": np.dtype(bool),
    **{f"INT{8 * n}": np.dtype(f"i{n}") for n in (1, 2, 4, 8)},
    **{f"UINT{8 * n}": np.dtype(f"u{n}") for n in (1, 2, 4, 8)},
    "FP16": np.dtype("f2"),
    "FP32": np.dtype("f4"),
    "FP64": np.dtype("f8"),
}


def signature(
    *inputs: dict[str, object], outputs: list[dict[str, object]] | None = None, params: list[Any] | None = None
) -> Signature:
    raw = {"inputs": json.dumps([{"required": True, **entry} for entry in inputs])} if inputs else {}
    raw |= {"outputs": json.dumps(outputs)} if outputs else {}
    return Signature.parse(raw | ({"params": json.dumps(params)} if params else {}))


def column(kind: str, name: str | None = None, **more: object) -> dict[str, object]:
    return {"type": kind, **({} if name is None else {"name": name}), **more}


def spec(dtype: str, *shape: int, name: str | None = None) -> dict[str, object]:
    entry: dict[str, object] = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}}
    return entry if name is None else entry | {"name": name}


NO_SIGNATURE = Signature()
TEXT = signature(column("string", "text"))
MIXED = signature(column("string", "text"), column("long", "count"), column("double", "weight", required=False))


def tensor(name: str, datatype: str, shape: list[Any], data: Any = None, **parameters: object) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    entry |= {} if data is None else {"data": data}
    return entry | ({"parameters": parameters} if parameters else {})


ONE = tensor("x", "INT8", [1], [1])


def read(*inputs: dict[str, Any], of: Signature = NO_SIGNATURE, tail: bytes = b"", **more: object) -> InferCall:
    header = json.dumps({"inputs": list(inputs), **more}).encode()
    return decode_infer(header + tail, str(len(header)) if tail else None, of)


def refusal(*inputs: Any, of: Signature = NO_SIGNATURE, tail: bytes = b"", **more: object) -> str:
    with pytest.raises(BadRequest) as caught:
        read(*inputs, of=of, tail=tail, **more)
    assert caught.value.remedy
    return f"{caught.value.cause} | {caught.value.remedy}"


def body_of(arrays: dict[str, np.ndarray[Any, Any]], binary: bool = True, **more: Any) -> tuple[bytes, str | None]:
    """The body and header length that the client sends."""
    inputs = []
    for name, array in arrays.items():
        inputs.append(InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    body, length = InferenceServerClient.generate_request_body(inputs, **more)
    return body, None if length is None else str(length)


def encoded(predictions: object, of: Signature = NO_SIGNATURE, **options: Any) -> tuple[InferResult, dict[str, Any]]:
    """The encoded response as the client parses it, and its JSON."""
    call = InferCall(read(tensor("x", "INT8", [1], [1])).table, **options)
    body, length = encode_infer(call, predictions, of, model_name="m", model_version="3")
    result = InferenceServerClient.parse_response_body(body, header_length=length)
    assert (length is None) == (not any("binary_data_size" in o.get("parameters", {}) for o in _outputs(body, length)))
    return result, result.get_response()


def _outputs(body: bytes, length: int | None) -> list[dict[str, Any]]:
    outputs = orjson.loads(body[:length])["outputs"]
    assert isinstance(outputs, list)
    return outputs


def without_nan(value: object) -> object:
    """Nested lists with NaN as None."""
    if isinstance(value, list):
        return [without_nan(part) for part in value]
    return None if value != value else value


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
ANY = st.recursive(
    LEAF, lambda more: st.lists(more, max_size=3) | st.dictionaries(st.text(max_size=3), more, max_size=2)
)
