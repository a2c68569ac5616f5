"""What the signature declares, in the protocol's terms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from likewise.core.signature import Field, Signature
from likewise.wire.oip.datatypes import FLOATS, INTEGERS
from likewise.wire.tensor import dtype_of, shape_of

INPUT = "input"  # an unnamed input's name in the metadata; a request may give it any
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


def named(fields: Sequence[Field] | None, alone: str) -> dict[str, Field]:
    """The fields by name; the only unnamed one is called `alone`, each of several by its place."""
    listed = fields or ()
    instead = [alone] if len(listed) == 1 else map(str, range(len(listed)))
    return {other if field.name is None else field.name: field for field, other in zip(listed, instead, strict=True)}


def only_output(signature: Signature) -> str:
    """The name of a prediction that has none: the signature's only output's, else OUTPUT."""
    names = list(named(signature.outputs, OUTPUT))
    return names[0] if len(names) == 1 else OUTPUT


def datatype_of(field: Field) -> str | None:
    """The datatype of the field's elements; None where any may come, and where a row is an object."""
    if field.kind == "tensor":
        return _of_dtype(dtype_of(field))
    return _COLUMNS.get(str(array_leaf(field)[0].get("type")))


def shape_in_metadata(field: Field) -> list[int]:
    """The shape with -1 where it varies: rows first, then one dimension a level of arrays."""
    if field.kind == "tensor":
        return list(shape_of(field))
    leaf, depth = array_leaf(field)
    return [-1] * (1 + (depth if str(leaf.get("type")) in _COLUMNS else 0))  # arrays of objects are JSON text


def array_leaf(field: Field) -> tuple[Mapping[str, object], int]:
    """The type inside a column's arrays, and how many levels of them there are."""
    spec, depth = field.raw, 0
    while spec.get("type") == "array" and isinstance(items := spec.get("items"), Mapping):
        spec, depth = items, depth + 1
    return spec, depth


def _of_dtype(dtype: str) -> str | None:
    """From numpy's name of a dtype."""
    if dtype == "bool":
        return "BOOL"
    if dtype.startswith(("str", "<U", "U", "bytes", "S", "|S")):
        return "BYTES"
    if found := re.fullmatch(r"(u?)int(\d+)|float(\d+)", dtype):
        name = f"FP{found[3]}" if found[3] else f"{found[1].upper()}INT{found[2]}"
        return name if name in INTEGERS or name in FLOATS else None
    return None
