"""The routes of the Open Inference Protocol v2, described for the model's own signature.

Source: Open Inference Protocol v2, HTTP/REST, and its Binary Tensor Data Extension.
"""

from __future__ import annotations

from collections.abc import Sequence

from likewise.core.signature import Field
from likewise.server.description.examples import Example
from likewise.server.description.responses import Answers
from likewise.server.description.schemas import Json, ref
from likewise.server.model import ServedModel
from likewise.wire.oip import model_metadata
from likewise.wire.oip.datatypes import DATATYPES
from likewise.wire.oip.declared import INPUT, datatype_of, named

_BINARY = "Inference-Header-Content-Length"


def v2_paths(model: ServedModel, example: Example | None, answers: Answers) -> Json:
    """All routes below `/v2`."""
    live = answers.ok("Yes.", _json({"type": "object", "properties": {"live": {"type": "boolean"}}}))
    ready = answers.ok("Yes.", _json({"type": "object", "properties": {"ready": {"type": "boolean"}}}))
    shut, open_live = answers.errors("405"), answers.errors("405", is_open=True)
    open_ready = answers.errors("405", "503", is_open=True)
    read = answers.read
    paths: Json = {
        "/v2": {"get": read("v2_server", "v2", "The server.", _ok(answers, "ServerMetadata"), shut)},
        "/v2/health/live": {"get": read("v2_live", "v2", "Whether it lives.", live, open_live, is_open=True)},
        "/v2/health/ready": {"get": read("v2_ready", "v2", "As /ready.", ready, open_ready, is_open=True)},
    }
    known = _parameters(model)
    paths |= _model_paths("/v2/models/{model}", known[:1], "", example, answers)
    if model.version:  # else there is no such path
        paths |= _model_paths("/v2/models/{model}/versions/{version}", known, "_version", example, answers)
    return paths


def _model_paths(prefix: str, parameters: list[Json], suffix: str, example: Example | None, answers: Answers) -> Json:
    metadata = answers.read(
        f"v2_model{suffix}", "v2", "The model's tensors.", _ok(answers, "ModelMetadata"), answers.errors("404", "405")
    )
    state = _json({"type": "object", "properties": {"name": {"type": "string"}, "ready": {"type": "boolean"}}})
    ready = answers.read(
        f"v2_model_ready{suffix}", "v2", "As /ready.", answers.ok("Yes.", state), answers.errors("404", "405", "503")
    )
    return {
        prefix: {"parameters": parameters, "get": metadata},
        f"{prefix}/ready": {"parameters": parameters, "get": ready},
        f"{prefix}/infer": {"parameters": parameters, "post": _infer(suffix, example, answers)},
    }


def _infer(suffix: str, example: Example | None, answers: Answers) -> Json:
    shown = {"examples": {"rows": {"value": example.infer}}} if example and example.infer else {}
    return {
        "tags": ["v2"],
        "operationId": f"v2_infer{suffix}",
        "summary": "Predictions for tensors.",
        "description": (
            "An input a column of the model, of the shape [rows] or [rows, 1]; or its tensors. Inputs have one first "
            f"dimension, and `data` as many elements as `shape` says. Tensors may stand behind the JSON: {_BINARY} is "
            "the JSON's length then, and `binary_data_size` a tensor's."
        ),
        "parameters": [*answers.parameters(), _header_length()],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": ref("InferenceRequest"), **shown}},
        },
        "responses": {
            "200": _outputs(answers),
            **answers.errors("400", "404", "405", "408", "413", "415", "422", "500", "503", "504"),
        },
    }


def _outputs(answers: Answers) -> Json:
    binary: Json = {"application/octet-stream": {}}
    ok = answers.ok(
        "The outputs; behind their JSON where binary ones are wanted.", _json(ref("InferenceResponse")) | binary
    )
    text = "The JSON's bytes, where binary tensors follow it."
    ok["headers"][_BINARY] = {"description": text, "schema": {"type": "integer", "minimum": 0}}
    return ok


def _header_length() -> Json:
    return {
        "name": _BINARY,
        "in": "header",
        "description": "Bytes of the JSON before the binary tensors; left out where there are none.",
        "schema": {"type": "string"},
    }


def _parameters(model: ServedModel) -> list[Json]:
    version: Json = {"type": "string", "enum": [model.version]}
    known: dict[str, Json] = {"model": {"type": "string", "enum": [model.model_name]}, "version": version}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name, schema in known.items()]


def v2_schemas(model: ServedModel) -> dict[str, Json]:
    """The components of these routes."""
    return {
        "ServerMetadata": _object({"name": _TEXT, "version": _TEXT, "extensions": {"type": "array", "items": _TEXT}}),
        "ModelMetadata": _model_metadata(model),
        "InferenceRequest": _request(model),
        "InferenceResponse": _response(),
    }


_TEXT: Json = {"type": "string"}
_SHAPE: Json = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_DATA: Json = {"type": "array", "description": "The elements in row-major order, flat or nested as the shape is."}


def _model_metadata(model: ServedModel) -> Json:
    tensor = _object(
        {"name": _TEXT, "datatype": {"enum": list(DATATYPES)}, "shape": {"type": "array", "items": {"type": "integer"}}}
    )
    tensors: Json = {"type": "array", "items": tensor}
    held = {"name": _TEXT, "platform": _TEXT, "inputs": tensors, "outputs": tensors}
    platform = "likewise"
    shown = model_metadata(model.signature, name=model.model_name, version=model.version or None, platform=platform)
    schema = _object(held)
    schema["properties"]["versions"] = {"type": "array", "items": _TEXT}
    return {**schema, "examples": [shown]}


def _request(model: ServedModel) -> Json:
    return {
        "type": "object",
        "properties": {
            "id": {"type": ["string", "null"], "description": "Comes back in the answer."},
            "parameters": {"type": "object", "description": "The model's params, and `binary_data_output`."},
            "inputs": {"type": "array", "items": _input(model.signature.inputs), "minItems": 1},
            "outputs": {
                "type": "array",
                "description": "The outputs that are wanted; all where it is left out.",
                "items": {"type": "object", "properties": {"name": _TEXT}, "required": ["name"]},
            },
        },
        "required": ["inputs"],
    }


def _input(fields: Sequence[Field] | None) -> Json:
    names = [] if any(field.name is None for field in fields or ()) else list(named(fields, INPUT))
    usual = sorted({datatype_of(field) or "BYTES" for field in fields or ()})
    text = f"Of the signature: {', '.join(usual)}. Others are taken where their values fit." if usual else ""
    return {
        "type": "object",
        "properties": {
            "name": {"type": "string", **({"enum": names} if names else {})},
            "shape": {**_SHAPE, "description": "Rows first."},
            "datatype": {"enum": list(DATATYPES), "description": text},
            "parameters": {"type": "object", "description": "`content_type: base64` for bytes in base64."},
            "data": _DATA,
        },
        "required": ["name", "shape", "datatype"],
    }


def _response() -> Json:
    output = _object({"name": _TEXT, "shape": _SHAPE, "datatype": {"enum": list(DATATYPES)}})
    output["properties"] |= {"data": _DATA, "parameters": {"type": "object"}}
    schema = _object({"model_name": _TEXT, "outputs": {"type": "array", "items": output}})
    schema["properties"] |= {"model_version": _TEXT, "id": _TEXT}
    return schema


def _object(properties: Json) -> Json:
    """An object that has all of `properties`."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _ok(answers: Answers, name: str) -> Json:
    return answers.ok("Its description.", _json(ref(name)))
