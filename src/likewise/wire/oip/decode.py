"""Decoding of the body of `POST /v2/models/{model}/infer`."""

from __future__ import annotations

from typing import Any

from likewise.core.errors import BadRequest
from likewise.core.signature import Signature
from likewise.wire.cells import Cells
from likewise.wire.frame import Fitter
from likewise.wire.jsontext import SHOWN, UNLIMITED, parse_json, shown
from likewise.wire.oip.call import InferCall
from likewise.wire.oip.columns import to_frame
from likewise.wire.oip.inputs import Tail, check_distinct, name_of, parameters_of, read_inputs
from likewise.wire.params import ParamsFitter

HEADER_LENGTH = "Inference-Header-Content-Length"  # length of the JSON in a body with binary tensors


def decode_infer(body: bytes, header_length: str | None, signature: Signature, cells: Cells = UNLIMITED) -> InferCall:
    """Decode an `infer` request and cast it to the model's `signature`.

    `header_length` is the header Inference-Header-Content-Length: the JSON's length in bytes if binary tensors follow
    it.  Raises BadRequest, which names the input and the row or element (both count from 0), and TooManyCells.
    Source: Open Inference Protocol v2 (kserve/open-inference-protocol), with the Binary Tensor Data Extension.
    """
    length = _length(header_length, len(body))
    request = parse_json(body[:length], cells)
    if not isinstance(request, dict):
        raise BadRequest(f"the body is {shown(request)}", remedy='send an object {"inputs": […]}')
    parameters = parameters_of(request, "the request")
    tensors = read_inputs(request.get("inputs"), Tail(memoryview(body)[length:]), cells)
    table, params = Fitter(signature)(to_frame(tensors, signature, cells)), ParamsFitter(signature)(parameters)
    cells.params(len(table), params)
    return InferCall(
        table=table,
        params=params,
        id=_id(request.get("id")),
        outputs=_outputs(request.get("outputs")),
        binary_output=_flag(parameters, "binary_data_output", "the request") or False,
    )


def _length(header: str | None, size: int) -> int:
    if header is None:
        return size
    text = header.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > size:
        raise BadRequest(
            f"{HEADER_LENGTH} is {header[:SHOWN]!r}, but the body has {size} bytes",
            remedy=f"set {HEADER_LENGTH} to the length in bytes of the JSON at the start of the body",
        )
    if int(text) == 0:
        raise BadRequest(
            f"{HEADER_LENGTH} is 0: a body without JSON is not supported",
            remedy="send the JSON that describes the inputs before their bytes",
        )
    return int(text)


def _id(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise BadRequest(f"id: expected a string, got {shown(value)}", remedy="send the id as a string, or leave it out")


def _outputs(value: object) -> dict[str, bool | None]:
    """The requested outputs by name, and whether each should be binary."""
    if value is None:
        return {}
    if not isinstance(value, list):
        raise BadRequest(f"outputs: expected a list, got {shown(value)}", remedy='send "outputs": [{"name": …}]')
    requested = [_output(entry, index) for index, entry in enumerate(value)]
    check_distinct([name for name, _ in requested], "outputs")
    return dict(requested)


def _output(entry: object, index: int) -> tuple[str, bool | None]:
    fields, name = name_of(entry, f"outputs, entry {index}")
    where = f"output {name[:SHOWN]!r}"
    parameters = parameters_of(fields, where)
    if parameters.get("classification"):
        raise BadRequest(
            f"{where}: the classification extension is not supported",
            remedy="omit parameters.classification, and take the highest values of the output",
        )
    return name, _flag(parameters, "binary_data", where)


def _flag(parameters: dict[str, Any], name: str, where: str) -> bool | None:
    value = parameters.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise BadRequest(f"{where}: parameters.{name} is {shown(value)}", remedy=f"send {name} as true or false")
