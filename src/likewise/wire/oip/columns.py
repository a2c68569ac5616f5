"""Conversion of input tensors to a frame for the model's signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from likewise.core.casts import Source
from likewise.core.errors import BadRequest
from likewise.core.signature import Field, Signature
from likewise.core.tensors import dtype_of
from likewise.wire.cells import Cells
from likewise.wire.frame import Frame
from likewise.wire.jsontext import SHOWN, nearest, parse_json
from likewise.wire.oip.declared import array_leaf
from likewise.wire.oip.inputs import InputTensor

_WHERE = "inputs"
_AS_JSON = frozenset({"array", "object", "map"})  # such values are sent as JSON text, one BYTES element per row


def to_frame(tensors: Sequence[InputTensor], signature: Signature, cells: Cells) -> Frame:
    """One column per input, unnamed if the signature has no names.  Raises BadRequest, which names the input."""
    _check_rows(tensors)
    fields = signature.inputs or ()
    if signature.columns is not None:
        _check_names([tensor.name for tensor in tensors], fields)
    elif fields and len(tensors) == 1:
        values = _column(tensors[0], fields[0] if len(fields) == 1 else None, cells)
        return Frame(None, [[value] for value in values], _WHERE, Source.TENSORS)
    elif fields and len(tensors) != len(fields):
        raise BadRequest(
            f"inputs: the model takes {len(fields)}, but {len(tensors)} were sent",
            remedy=f"send {len(fields)}, in the signature's order; names are ignored",
        )
    known = {field.name: field for field in fields}
    named = signature.columns is not None
    chosen = [known[tensor.name] for tensor in tensors] if named else fields or [None] * len(tensors)
    columns = [_column(tensor, field, cells) for tensor, field in zip(tensors, chosen, strict=True)]
    return Frame(tuple(tensor.name for tensor in tensors), list(zip(*columns, strict=True)), _WHERE, Source.TENSORS)


def _check_rows(tensors: Sequence[InputTensor]) -> None:
    first = tensors[0]
    for tensor in tensors[1:]:
        if tensor.shape[0] != first.shape[0]:
            raise BadRequest(
                f"input {tensor.name[:SHOWN]!r} has {tensor.shape[0]} rows, "
                f"but input {first.name[:SHOWN]!r} has {first.shape[0]}",
                remedy="send inputs with the same first dimension, the number of rows",
            )


def _check_names(sent: Sequence[str], fields: Sequence[Field]) -> None:
    names = [str(field.name) for field in fields]
    for field in fields:
        if field.required and field.name not in sent:
            near = nearest(str(field.name), (name for name in sent if name not in names))
            raise BadRequest(
                f"inputs: {field.name!r} is missing; sent: {', '.join(repr(name[:SHOWN]) for name in sent[:20])}",
                remedy=f"rename {near!r} to {field.name!r}" if near else f"send the input {field.name!r}",
            )
    for name in sent:
        if name not in names:
            near = nearest(name, names)
            raise BadRequest(
                f"inputs: the model has no input {name[:SHOWN]!r}; it takes: {', '.join(map(repr, names[:20]))}",
                remedy=f"rename it to {near!r}" if near else "leave it out",
            )


def _column(tensor: InputTensor, field: Field | None, cells: Cells) -> list[Any]:
    """One value per row: nested lists for tensors and arrays, else one element."""
    kind = "any" if field is None else field.kind
    if kind == "tensor" or (kind == "array" and len(tensor.shape) > 1):
        return tensor.rows(_elements(tensor, field))
    if tensor.flat:
        if kind in _AS_JSON and tensor.datatype == "BYTES":
            return _from_json_text(tensor, cells)
        return _elements(tensor, field)
    if kind == "any":
        return tensor.rows(_elements(tensor, field))
    raise BadRequest(
        f"input {tensor.name[:SHOWN]!r}: the model takes one {kind} per row, but the shape is {list(tensor.shape)}",
        remedy="send the shape [rows] or [rows, 1]",
    )


def _elements(tensor: InputTensor, field: Field | None) -> list[Any]:
    """The elements as `Fitter` expects them: BYTES as text, or as bytes for a binary column."""
    if tensor.datatype != "BYTES":
        return tensor.values
    leaf = _leaf(field)
    if leaf in ("binary", "bytes") or (leaf == "any" and tensor.base64):
        return [None if value is None else _raw(value) for value in tensor.values]
    return _texts(tensor)


def _leaf(field: Field | None) -> str:
    """The element type inside arrays; for a tensor `bytes`, `any` (objects) or `text`."""
    if field is None:
        return "any"
    if field.kind == "tensor":
        dtype = dtype_of(field)
        return "bytes" if dtype.startswith(("bytes", "S", "|S")) else "any" if dtype == "object" else "text"
    return str(array_leaf(field)[0].get("type"))


def _raw(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _texts(tensor: InputTensor) -> list[str | None]:
    texts = []
    for index, value in enumerate(tensor.values):
        try:
            texts.append(value.decode() if isinstance(value, bytes) else value)
        except UnicodeDecodeError as error:
            raise BadRequest(
                f"input {tensor.name[:SHOWN]!r}, element {index}: not UTF-8: {error.reason} at byte {error.start}",
                remedy="encode the text as UTF-8",
            ) from error
    return texts


def _from_json_text(tensor: InputTensor, cells: Cells) -> list[object]:
    values: list[object] = []
    texts = _texts(tensor)
    cells.texts(texts, f"input {tensor.name[:SHOWN]!r}")
    for row, text in enumerate(texts):
        try:
            values.append(None if text is None else parse_json(text))
        except BadRequest as error:
            raise BadRequest(
                f"input {tensor.name[:SHOWN]!r}, row {row}: {error.cause.removeprefix('the body is ')}",
                remedy="send the row's value as JSON text",
            ) from error
    return values
