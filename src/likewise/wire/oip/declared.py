"""The model's signature in the protocol's terms: names, datatypes and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from likewise.core.signature import Field, Signature
from likewise.core.tensors import dtype_of, shape_of
from likewise.wire.oip.datatypes import FLOATS, INTEGERS

INPUT = "input"  # name of an unnamed input in the metadata; requests may use any name
OUTPUT = "predict"

_COLUMNS = {
    "string": "BYTES",
    "binary": "BYTES",
    "datetime": "BYTES",
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
}


def model_metadata(signature: Signature, *, name: str, version: str | None, platform: str) -> dict[str, object]:
    """The model metadata: inputs and outputs as the signature declares them, empty without a signature.

    Variable dimensions are -1.  The shape of a column is [-1]; its datatype is BYTES if its values may have any type.
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


def named(fields: Sequence[Field] | None, alone: str) -> dict[str, Field]:
    """The fields by name; a single unnamed field is called `alone`, several are named by their index."""
    listed = fields or ()
    instead = [alone] if len(listed) == 1 else map(str, range(len(listed)))
    return {other if field.name is None else field.name: field for field, other in zip(listed, instead, strict=True)}


def only_output(signature: Signature) -> str:
    """The name for unnamed predictions: that of the signature's only output, else OUTPUT."""
    names = list(named(signature.outputs, OUTPUT))
    return names[0] if len(names) == 1 else OUTPUT


def datatype_of(field: Field) -> str | None:
    """The datatype of the field's elements; None if they may have any type, or if a row is an object."""
    if field.kind == "tensor":
        return _of_dtype(dtype_of(field))
    return _COLUMNS.get(str(array_leaf(field)[0].get("type")))


def shape_in_metadata(field: Field) -> list[int]:
    """The shape, with -1 for variable dimensions: rows first, then one dimension per level of arrays."""
    if field.kind == "tensor":
        return list(shape_of(field))
    leaf, depth = array_leaf(field)
    return [-1] * (1 + (depth if str(leaf.get("type")) in _COLUMNS else 0))  # arrays of objects are JSON text


def array_leaf(field: Field) -> tuple[Mapping[str, object], int]:
    """The element type inside a column's arrays, and the number of array levels."""
    spec, depth = field.raw, 0
    while spec.get("type") == "array" and isinstance(items := spec.get("items"), Mapping):
        spec, depth = items, depth + 1
    return spec, depth


def _of_dtype(dtype: str) -> str | None:
    """The datatype for numpy's name of a dtype, or None if there is none."""
    if dtype == "bool":
        return "BOOL"
    if dtype.startswith(("str", "<U", "U", "bytes", "S", "|S")):
        return "BYTES"
    if match := re.fullmatch(r"(u?)int(\d+)|float(\d+)", dtype):
        name = f"FP{match[3]}" if match[3] else f"{match[1].upper()}INT{match[2]}"
        return name if name in INTEGERS or name in FLOATS else None
    return None
