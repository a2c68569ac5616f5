"""What `GET /v2` and `GET /v2/models/{model}` answer."""

from __future__ import annotations

from collections.abc import Sequence

from likewise.core.signature import Field, Signature
from likewise.wire.oip.declared import INPUT, OUTPUT, datatype_of, named, shape_in_metadata

EXTENSIONS = ("binary_tensor_data",)


def server_metadata(*, name: str, version: str) -> dict[str, object]:
    """The server, its version and the protocol's extensions that it reads."""
    return {"name": name, "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(signature: Signature, *, name: str, version: str | None, platform: str) -> dict[str, object]:
    """The model's inputs and outputs as its signature declares them; none where it does not.

    -1 is a dimension that varies; a column is [-1], and BYTES where its values may be of any type.
    """
    return {
        "name": name,
        "versions": [] if version is None else [version],
        "platform": platform,
        "inputs": _tensors(signature.inputs, INPUT),
        "outputs": _tensors(signature.outputs, OUTPUT),
    }


def _tensors(fields: Sequence[Field] | None, alone: str) -> list[dict[str, object]]:
    return [
        {"name": name, "datatype": datatype_of(field) or "BYTES", "shape": shape_in_metadata(field)}
        for name, field in named(fields, alone).items()
    ]
