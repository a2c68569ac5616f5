"""The body of `POST /v2/models/{model}/infer`, read."""

from __future__ import annotations

from typing import Any

from likewise.core.errors import BadRequest
from likewise.core.signature import Signature
from likewise.wire.frame import Fitter
from likewise.wire.jsontext import parse_json, shown
from likewise.wire.oip.call import InferCall
from likewise.wire.oip.columns import to_frame
from likewise.wire.oip.inputs import SHOWN, Tail, check_distinct, name_of, parameters_of, read_inputs
from likewise.wire.params import ParamsFitter

HEADER_LENGTH = "Inference-Header-Content-Length"  # of the JSON in a body, where binary tensors follow it


def decode_infer(body: bytes, header_length: str | None, signature: Signature) -> InferCall:
    """Read an `infer` request, fitted to the model's `signature`.

    `header_length` is the header Inference-Header-Content-Length: the JSON's length in bytes where binary tensors
    follow it.  Raises BadRequest, which names the input and the row or the element (both count from 0); nothing else.
    Source: Open Inference Protocol v2 (kserve/open-inference-protocol), with the Binary Tensor Data Extension.
    """
    length = _length(header_length, len(body))
    request = parse_json(body[:length])
    if not isinstance(request, dict):
        raise BadRequest(f"the body is {shown(request)}", remedy='send an object {"inputs": […]}')
    parameters = parameters_of(request, "the request")
    tensors = read_inputs(request.get("inputs"), Tail(memoryview(body)[length:]))
    return InferCall(
        table=Fitter(signature)(to_frame(tensors, signature)),
        params=ParamsFitter(signature)(parameters),
        id=_id(request.get("id")),
        outputs=_outputs(request.get("outputs")),
        binary_output=_flag(parameters, "binary_data_output", "the request") or False,
    )


def _length(header: str | None, whole: int) -> int:
    if header is None:
        return whole
    text = header.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > whole:
        raise BadRequest(
            f"{HEADER_LENGTH} is {header[:SHOWN]!r}, and the body has {whole} bytes",
            remedy=f"send the length in bytes of the JSON that the body begins with as {HEADER_LENGTH}",
        )
    if int(text) == 0:
        raise BadRequest(
            f"{HEADER_LENGTH} is 0: a body of raw bytes alone is not read here",
            remedy="send the JSON that describes the inputs before their bytes",
        )
    return int(text)


def _id(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise BadRequest(f"id: expected a string, got {shown(value)}", remedy="send the id as a string, or leave it out")


def _outputs(value: object) -> dict[str, bool | None]:
    """Whether each is to be binary, by name."""
    if value is None:
        return {}
    if not isinstance(value, list):
        raise BadRequest(f"outputs: expected a list, got {shown(value)}", remedy='send "outputs": [{"name": …}]')
    asked = [_output(entry, index) for index, entry in enumerate(value)]
    check_distinct([name for name, _ in asked], "outputs")
    return dict(asked)


def _output(entry: object, index: int) -> tuple[str, bool | None]:
    held, name = name_of(entry, f"outputs, entry {index}")
    where = f"output {name[:SHOWN]!r}"
    parameters = parameters_of(held, where)
    if parameters.get("classification"):
        raise BadRequest(
            f"{where}: the classification extension is not supported here",
            remedy="leave parameters.classification out, and take the highest values of the output itself",
        )
    return name, _flag(parameters, "binary_data", where)


def _flag(parameters: dict[str, Any], name: str, where: str) -> bool | None:
    value = parameters.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise BadRequest(f"{where}: parameters.{name} is {shown(value)}", remedy=f"send {name} as true or false")
