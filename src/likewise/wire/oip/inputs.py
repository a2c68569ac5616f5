"""Decoding of a request's `inputs`: tensors with a name, datatype, shape, and data in JSON or in the binary tail."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

from likewise.core.casts import Mismatch, from_base64
from likewise.core.errors import BadRequest
from likewise.wire.cells import Cells
from likewise.wire.jsontext import SHOWN, nearest, shown
from likewise.wire.oip.datatypes import DATATYPES, FIXED, BadElement, from_binary, from_json, min_size

MAX_RANK = 8
MAX_LISTS = 100_000  # nested lists are costly in memory: more are rejected if most have one element


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One input tensor.

    shape: at least one dimension; the first is the number of rows.
    values: elements in row-major order, None if missing; BYTES are str if they come from JSON text, else bytes.
    base64: the input declares base64 content, so its values are bytes rather than text.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: list[Any]
    base64: bool = False

    @property
    def flat(self) -> bool:
        """Whether each row is one element: the shape is [n] or [n, 1]."""
        return self.shape[1:] in ((), (1,))

    def rows(self, values: list[Any]) -> list[Any]:
        """Reshape `values`, one per element, to one nested list per row; unchanged if the shape is [n]."""
        for size in reversed(self.shape[1:]):
            values = [values[i : i + size] for i in range(0, len(values), size)]
        return values


class Tail:
    """The bytes after the JSON header, consumed from the front by one binary tensor after another."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def take(self, size: int, where: str) -> memoryview:
        """The next `size` bytes; raises BadRequest if there are fewer."""
        if size > len(self._data):
            raise BadRequest(
                f"{where}: binary_data_size is {size}, but only {len(self._data)} bytes are left after the JSON header",
                remedy="send each binary tensor completely, and the JSON's length as Inference-Header-Content-Length",
            )
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def check_empty(self) -> None:
        """Raise BadRequest if bytes are left that belong to no input."""
        if len(self._data):
            raise BadRequest(
                f"{len(self._data)} bytes after the JSON header belong to no input",
                remedy="set parameters.binary_data_size of each binary input, in the order of the inputs",
            )


def read_inputs(value: object, tail: Tail, cells: Cells) -> list[InputTensor]:
    """The tensors of `inputs`, in order; raises BadRequest, which names the input and the element, and TooManyCells."""
    if not isinstance(value, list) or not value:
        raise BadRequest(
            f"inputs: expected a list of tensors, got {shown(value)}", remedy='send "inputs": [{"name": …, …}]'
        )
    cells.check(sum(map(_declared, value)), "inputs")
    tensors = [_read(entry, index, tail) for index, entry in enumerate(value)]
    tail.check_empty()
    check_distinct([tensor.name for tensor in tensors], "inputs")
    return tensors


def check_distinct(names: Iterable[str], where: str) -> None:
    """Raise BadRequest if a name occurs twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadRequest(f"{where}: duplicate name {name[:SHOWN]!r}", remedy="use each name once")
        seen.add(name)


def parameters_of(entry: dict[str, Any], where: str) -> dict[str, Any]:
    """The entry's `parameters`; empty if there are none."""
    parameters = entry.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise BadRequest(f"{where}: parameters is {shown(parameters)}", remedy="send parameters as an object")
    if "shared_memory_region" in (parameters or {}):
        raise BadRequest(f"{where}: shared memory is not supported", remedy="send the tensors with the request")
    return parameters or {}


def name_of(entry: object, where: str) -> tuple[dict[str, Any], str]:
    """Validate an entry of `inputs` or `outputs`; returns the entry and its name."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        got = entry.get("name") if isinstance(entry, dict) else entry
        raise BadRequest(f"{where}: expected an object with a name, got {shown(got)}", remedy='send {"name": "…", …}')
    return entry, entry["name"]


def _declared(entry: object) -> int:
    """The number of elements that an input declares; `_read` refuses what is not a shape."""
    shape = entry.get("shape") if isinstance(entry, dict) else None
    sizes = shape if isinstance(shape, list) and len(shape) <= MAX_RANK else []
    return math.prod(sizes) if sizes and all(type(size) is int and size > 0 for size in sizes) else 0


def _read(entry: object, index: int, tail: Tail) -> InputTensor:
    fields, name = name_of(entry, f"inputs, entry {index}")
    where = f"input {name[:SHOWN]!r}"
    datatype = _datatype(fields.get("datatype"), where)
    shape = _shape(fields.get("shape"), where)
    parameters = parameters_of(fields, where)
    base64 = parameters.get("content_type") == "base64"
    binary = parameters.get("binary_data_size")
    try:
        if binary is None:
            values = from_json(datatype, _flatten(fields.get("data"), shape, where))
            values = _from_base64(values) if base64 and datatype == "BYTES" else values
        else:
            values = from_binary(datatype, _binary(fields, datatype, shape, tail, where), math.prod(shape))
    except BadElement as error:
        raise BadRequest(
            f"{where}, element {error.index}: expected {error.expected}",
            remedy="correct the element or the datatype; elements count from 0, row by row",
        ) from error
    return InputTensor(name, datatype, shape, values, base64)


def _datatype(value: object, where: str) -> str:
    if isinstance(value, str) and value in DATATYPES:
        return value
    near = nearest(value[:SHOWN].upper(), DATATYPES) if isinstance(value, str) else None
    raise BadRequest(
        f"{where}: the datatype is {shown(value)}",
        remedy=f"did you mean {near!r}?" if near else f"send one of: {', '.join(DATATYPES)}",
    )


def _shape(value: object, where: str) -> tuple[int, ...]:
    """Validate the shape; only the first dimension may be 0 (no rows)."""
    sizes = value if isinstance(value, list) else []
    if not 1 <= len(sizes) <= MAX_RANK or any(type(size) is not int for size in sizes):
        raise BadRequest(
            f"{where}: the shape is {shown(value)}", remedy=f"send the shape as a list of 1 to {MAX_RANK} whole numbers"
        )
    if sizes[0] < 0 or min(sizes[1:], default=1) < 1:
        raise BadRequest(
            f"{where}: the shape is {str(sizes)[:200]}",
            remedy="send the number of rows first, then sizes of at least 1",
        )
    lists = sum(accumulate(sizes[:-1], operator.mul))
    if lists > max(MAX_LISTS, 2 * math.prod(sizes)):
        raise BadRequest(
            f"{where}: the shape {str(sizes)[:200]} has {lists} nested lists, most with a single element",
            remedy="send fewer dimensions of size 1, or fewer rows per request",
        )
    return tuple(sizes)


def _binary(entry: dict[str, Any], datatype: str, shape: tuple[int, ...], tail: Tail, where: str) -> memoryview:
    """The tensor's bytes, after checking that their size matches its shape."""
    size = entry["parameters"]["binary_data_size"]
    if type(size) is not int or size < 0:
        raise BadRequest(f"{where}: binary_data_size is {shown(size)}", remedy="send the tensor's size in bytes")
    if entry.get("data") is not None:
        raise BadRequest(f"{where}: both data and binary_data_size are set", remedy="send only one of them")
    needed = min_size(datatype, math.prod(shape))
    if needed > size or (datatype in FIXED and needed != size):
        raise BadRequest(
            f"{where}: binary_data_size is {size}, but the shape {list(shape)} of {datatype} needs "
            f"{'' if datatype in FIXED else 'at least '}{needed} bytes",
            remedy="send a shape that matches the data",
        )
    return tail.take(size, where)


def _flatten(data: object, shape: tuple[int, ...], where: str) -> list[Any]:
    """The elements in row-major order; `data` is flat or nested like the shape."""
    if not isinstance(data, list):
        raise BadRequest(f"{where}: data is {shown(data)}", remedy="send data as a list, or set binary_data_size")
    if not any(type(part) is list for part in data):
        if len(data) != math.prod(shape):
            raise _shape_mismatch(f"{len(data)} elements", shape, where)
        return data
    level: list[Any] = [data]
    for depth, size in enumerate(shape):
        for part in level:
            if type(part) is not list or len(part) != size:
                raise _shape_mismatch(f"{shown(part)} at level {depth}", shape, where)
        level = list(chain.from_iterable(level))
    return level


def _from_base64(values: list[Any]) -> list[Any]:
    decoded: list[Any] = []
    for index, value in enumerate(values):
        try:
            decoded.append(None if value is None else from_base64(value))
        except Mismatch as error:
            raise BadElement(index, str(error)) from error
    return decoded


def _shape_mismatch(actual: str, shape: tuple[int, ...], where: str) -> BadRequest:
    return BadRequest(
        f"{where}: data has {actual}, but the shape is {str(list(shape))[:200]}",
        remedy="send a shape that matches the data",
    )
