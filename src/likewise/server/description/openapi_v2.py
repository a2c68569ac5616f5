"""The OpenAPI operations and schemas of the Open Inference Protocol v2, for the model's own signature.

Source: Open Inference Protocol v2, HTTP/REST, and its Binary Tensor Data Extension.
"""

from __future__ import annotations

from collections.abc import Sequence

from likewise.core.signature import Field
from likewise.server.description.common import PARAMETERS, header, operation
from likewise.server.description.examples import Example
from likewise.server.description.schemas import TEXT, JsonObject, array_of, as_json, object_of, ref
from likewise.server.model import ServedModel
from likewise.wire.oip import HEADER_LENGTH, model_metadata
from likewise.wire.oip.datatypes import DATATYPES
from likewise.wire.oip.declared import INPUT, datatype_of, named

_SHAPE = array_of({"type": "integer", "minimum": 0}, minItems=1)
_DATA = array_of({}, description="The elements in row-major order, flat or nested like the shape.")
_DATATYPE: JsonObject = {"enum": list(DATATYPES)}
_DECLARED = array_of(object_of({"name": TEXT, "datatype": _DATATYPE, "shape": array_of({"type": "integer"})}))
_OUTPUT = object_of(
    {"name": TEXT, "shape": _SHAPE, "datatype": _DATATYPE}, {"data": _DATA, "parameters": {"type": "object"}}
)
_LENGTH = header(
    HEADER_LENGTH, "Length in bytes of the JSON before the binary tensors; omitted without binary tensors."
)
_INFER = (
    "One input per column of the model, with the shape [rows] or [rows, 1], or the model's tensors. All inputs have "
    "the same first dimension, and `data` has as many elements as `shape` specifies. Binary tensors may follow the "
    f"JSON: then {HEADER_LENGTH} is the JSON's length, and `binary_data_size` the length of each tensor."
)


def infer_operation(example: Example | None) -> JsonObject:
    """The operation `POST /v2/models/{model}/infer`."""
    body: JsonObject = {"schema": ref("InferenceRequest")}
    if example and example.infer:
        body["examples"] = {"rows": {"value": example.infer}}
    infer = operation(
        "v2_infer",
        "v2",
        "Predictions for tensors.",
        "The outputs; binary ones, if requested, follow the JSON.",
        as_json(ref("InferenceResponse")) | {"application/octet-stream": {}},
        "400 404 405 408 413 415 422 500 503 504",
        description=_INFER,
        parameters=[*PARAMETERS, _LENGTH],
        requestBody={"required": True, "content": {"application/json": body}},
    )
    text = "Length of the JSON in bytes, if binary tensors follow it."
    length = {"description": text, "schema": {"type": "integer", "minimum": 0}}
    infer["responses"]["200"]["headers"][HEADER_LENGTH] = length
    return infer


def v2_schemas(model: ServedModel) -> dict[str, JsonObject]:
    """The component schemas of the protocol's routes."""
    metadata = model_metadata(
        model.signature, name=model.model_name, version=model.version or None, platform="likewise"
    )
    return {
        "ServerMetadata": object_of({"name": TEXT, "version": TEXT, "extensions": array_of(TEXT)}),
        "ModelMetadata": object_of(
            {"name": TEXT, "platform": TEXT, "inputs": _DECLARED, "outputs": _DECLARED},
            {"versions": array_of(TEXT)},
            examples=[metadata],
        ),
        "InferenceRequest": object_of(
            {"inputs": array_of(_input(model.signature.inputs), minItems=1)},
            {
                "id": {"type": ["string", "null"], "description": "Returned in the response."},
                "parameters": {"type": "object", "description": "The model's params, and `binary_data_output`."},
                "outputs": array_of(object_of({"name": TEXT}), description="The requested outputs; all if omitted."),
            },
        ),
        "InferenceResponse": object_of(
            {"model_name": TEXT, "outputs": array_of(_OUTPUT)}, {"model_version": TEXT, "id": TEXT}
        ),
    }


def _input(fields: Sequence[Field] | None) -> JsonObject:
    names = [] if any(field.name is None for field in fields or ()) else list(named(fields, INPUT))
    usual = sorted({datatype_of(field) or "BYTES" for field in fields or ()})
    text = f"From the signature: {', '.join(usual)}. Others are accepted if their values fit." if usual else ""
    return object_of(
        {
            "name": {**TEXT, **({"enum": names} if names else {})},
            "shape": {**_SHAPE, "description": "Rows first."},
            "datatype": {**_DATATYPE, "description": text},
        },
        {
            "parameters": {"type": "object", "description": "`content_type: base64` for bytes in base64."},
            "data": _DATA,
        },
    )
