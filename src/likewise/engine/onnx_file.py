"""What an ONNX file declares: its inputs and outputs, and the files that hold its weights; read without a library.

Source: onnx.proto of ONNX 1.20, and the wire format of Protocol Buffers.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from likewise.core.errors import ModelInvalid

Shape = tuple["int | str | None", ...]
"""One entry per axis: its length, the name of a free axis, or None for a free axis without a name."""

_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE = 1, 5, 11, 12, 15
_TENSOR_NAME, _TENSOR_EXTERNAL = 8, 13
_TYPE_TENSOR = 1
_NESTED = {
    "model": {_MODEL_GRAPH: "graph", _MODEL_FUNCTIONS: "function", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "graph": {_GRAPH_NODE: "node", _GRAPH_INITIALIZER: "tensor", _GRAPH_SPARSE: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 6: "graph", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""By message: the fields that lead to tensors, and the message that each contains."""

Message = memoryview


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """inputs, outputs: shapes by name, in the file's order; None for anything but a tensor of known rank.

    external: the paths of the files with weights, relative to the file's folder.
    """

    inputs: dict[str, Shape | None]
    outputs: dict[str, Shape | None]
    external: frozenset[str]

    @property
    def free_batch_axis(self) -> bool:
        """Whether the first axis of all inputs and outputs is free: necessary for rows to be independent."""
        shapes = [*self.inputs.values(), *self.outputs.values()]
        return all(shape is None or (bool(shape) and not isinstance(shape[0], int)) for shape in shapes)


def read_onnx(path: Path) -> OnnxFile:
    """Read the ONNX model in `path`.

    Raises ModelInvalid for a file that is not ONNX, or whose weights are outside of its folder.
    """
    try:
        with path.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)  # unmapped with its last view
        found = _read(memoryview(mapped))
    except (OSError, ValueError, IndexError) as error:
        raise ModelInvalid(f"{path.name} cannot be read as ONNX: {error}", remedy="log the model again") from error
    for name in sorted(found.external):
        _check_inside(path.parent, name)
    return found


def _check_inside(folder: Path, name: str) -> None:
    """Raise ModelInvalid for a path of weights outside of the model's folder, which a runtime would read."""
    parts = PurePosixPath(name)
    outside = parts.is_absolute() or ".." in parts.parts or "\\" in name or ":" in name or "\0" in name
    if not name or outside or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise ModelInvalid(
            f"the ONNX model reads weights from {name!r}, which is outside of its folder",
            remedy="save it again with its weights in the same folder: onnx.save_model(…, save_as_external_data=True)",
        )


def _read(data: Message) -> OnnxFile:
    external: set[str] = set()
    inputs: dict[str, Shape | None] = {}
    outputs: dict[str, Shape | None] = {}
    weights: set[str] = set()
    graphs = 0
    for number, message in _messages(data):
        if number != _MODEL_GRAPH:
            continue
        graphs += 1
        for field, part in _messages(message):
            if field in (_GRAPH_INPUT, _GRAPH_OUTPUT):
                name, shape = _value_info(part)
                (inputs if field == _GRAPH_INPUT else outputs)[name] = shape
            elif field == _GRAPH_INITIALIZER:
                weights.update(bytes(text).decode() for tag, text in _messages(part) if tag == _TENSOR_NAME)
    if graphs != 1 or not outputs:
        raise ValueError("it contains no graph")
    _collect(data, "model", external)
    return OnnxFile({n: s for n, s in inputs.items() if n not in weights}, outputs, frozenset(external))


def _collect(data: Message, kind: str, external: set[str]) -> None:
    """Add the external files of all tensors in the message `data`, also in nested graphs, to `external`."""
    pending = [(data, kind)]
    while pending:
        message, name = pending.pop()
        for field, part in _messages(message):
            if name == "tensor":
                if field == _TENSOR_EXTERNAL:
                    external.update(_location(part))
            elif (inner := _NESTED[name].get(field)) is not None:
                pending.append((part, inner))


def _location(entry: Message) -> Iterator[str]:
    """The file's path, if the entry of `external_data` is its location rather than its offset, length or checksum."""
    texts = {field: bytes(part).decode() for field, part in _messages(entry)}
    if texts.get(1) == "location":
        yield texts.get(2, "")


def _value_info(data: Message) -> tuple[str, Shape | None]:
    name, shape = "", None
    for field, part in _messages(data):
        if field == 1:
            name = bytes(part).decode()
        elif field == 2:
            shape = next((_shape(tensor) for kind, tensor in _messages(part) if kind == _TYPE_TENSOR), None)
    return name, shape


def _shape(tensor: Message) -> Shape | None:
    for field, shape in _messages(tensor):
        if field == 2:
            return tuple(_axis(axis) for number, axis in _messages(shape) if number == 1)
    return None


def _axis(data: Message) -> int | str | None:
    for field, value in _fields(data):
        if field == 1 and isinstance(value, int):
            return value
        if field == 2 and not isinstance(value, int):
            return bytes(value).decode()
    return None


def _messages(data: Message) -> Iterator[tuple[int, Message]]:
    """The fields of bytes, which messages and texts are."""
    for field, value in _fields(data):
        if not isinstance(value, int):
            yield field, value


def _fields(data: Message) -> Iterator[tuple[int, int | Message]]:
    """Numbers and values of all fields; a value of fixed length is skipped. ValueError for anything else."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
        elif wire == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("it ends early")
            yield tag >> 3, data[at : at + length]
            at += length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError("it is not in the format of Protocol Buffers")


def _varint(data: Message, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("it is not in the format of Protocol Buffers")
