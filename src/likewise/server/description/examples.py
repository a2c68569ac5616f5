"""A small example request in every supported form: the model's own, or one generated from the signature's types."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import orjson

from likewise.core.errors import LikewiseError
from likewise.core.json_values import json_form
from likewise.core.signature import Field, Signature
from likewise.core.tensors import shape_of
from likewise.server.model import ServedModel
from likewise.wire import decode
from likewise.wire.oip.declared import INPUT, datatype_of
from likewise.wire.oip.outputs import rectangle

JsonObject = dict[str, Any]

MAX_SHOWN = 4000  # characters; longer examples are not shown
_ROWS = 2
_NESTED = ("array", "object", "map")
_SAMPLES: dict[str, object] = {
    "string": "some text",
    "integer": 1,
    "long": 1,
    "float": 1.5,
    "double": 1.5,
    "boolean": True,
    "datetime": datetime(2026, 1, 31, 9, 30),
    "binary": b"bytes",
}


@dataclass(frozen=True, slots=True)
class Example:
    """Some rows, usually one or two, and params; the properties render them in the forms of `POST /invocations`.

    rows: JSON values, bytes as base64.  ascii_rows: bytes as ASCII text, as `inputs` and `instances` expect them.
    """

    signature: Signature
    columns: tuple[str, ...] | None
    rows: list[list[Any]]
    ascii_rows: list[list[Any]]
    params: JsonObject

    @property
    def records(self) -> list[JsonObject] | None:
        """One record per row; None if the columns have no names."""
        return None if self.columns is None else [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    @property
    def split(self) -> JsonObject | None:
        """pandas' split orient; None for a tensor without a fixed width."""
        if self.columns is not None:
            return {"columns": list(self.columns), "data": self.rows}
        fields = self.signature.inputs or ()
        if self.signature.is_tensor:
            fixed = -1 not in shape_of(fields[0])[1:]
            return {"data": [rectangle(row)[1] for row in self.rows]} if fixed else None
        return {"data": [row[0] for row in self.rows] if len(fields) > 1 else self.rows}

    @property
    def instances(self) -> object:
        """Records, or values without names if there is one column of plain values."""
        fields = self.signature.inputs or ()
        bare = len(fields) == 1 and fields[0].kind not in ("object", "map", "any")
        if self.columns is None or bare:
            return [row[0] for row in self.ascii_rows]
        return [dict(zip(self.columns, row, strict=True)) for row in self.ascii_rows]

    @property
    def inputs(self) -> object:
        """Columns of values, or the values of one row if a cell is itself a list or an object."""
        if self.columns is None:
            return self.instances
        if any(field.kind in _NESTED for field in self.signature.inputs or ()):
            return dict(zip(self.columns, self.ascii_rows[0], strict=True))
        return {name: [row[at] for row in self.ascii_rows] for at, name in enumerate(self.columns)}

    @property
    def csv(self) -> str | None:
        """A header and one line per row; None if the columns have no names."""
        if self.columns is None:
            return None
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_csv_field(value) for value in row] for row in self.rows)
        return text.getvalue()

    @property
    def infer(self) -> JsonObject | None:
        """A body of the Open Inference Protocol; None for a model without a signature."""
        fields = self.signature.inputs
        if not fields or (self.columns is None and len(fields) > 1):
            return None
        known = {field.name: field for field in fields}
        tensors = [
            _tensor(known.get(name, fields[0]), name, [row[at] for row in self.rows])
            for at, name in enumerate(self.columns or (None,))
        ]
        return {"inputs": tensors, **({"parameters": self.params} if self.params else {})}

    def bodies(self) -> dict[str, JsonObject]:
        """Complete request bodies by the name of MLflow's form, with `params` if the model takes any."""
        values = {
            "dataframe_split": self.split,
            "dataframe_records": self.records,
            "instances": self.instances,
            "inputs": self.inputs,
        }
        params = {"params": self.params} if self.params else {}
        return {form: {form: value, **params} for form, value in values.items() if value is not None}


def example_of(model: ServedModel) -> Example | None:
    """The first rows of the model's own example if it is short and readable, else generated ones; None if too large."""
    for source in (_logged, _generated):
        example = source(model)
        if example is not None and len(json.dumps(example.instances)) <= MAX_SHOWN:
            return example
    return None


def _logged(model: ServedModel) -> Example | None:
    if not model.example:
        return None
    try:
        call = decode(model.example, None, model.signature)
    except LikewiseError:
        return None
    fixed = any(f.kind == "tensor" and shape_of(f)[0] != -1 for f in model.signature.inputs or ())
    rows = list(call.table.rows)[: None if fixed else _ROWS]
    plain = call.table.sent is None and any(rows)
    return _example(model.signature, call.table.columns, rows, call.params or {}) if plain else None


def _generated(model: ServedModel) -> Example | None:
    fields = model.signature.inputs or ()
    params = {str(field.name): field.raw.get("default") for field in model.signature.params or ()}
    if not fields:
        return _example(model.signature, ("column",), [("some text",)], params)
    if any(math.prod(map(abs, shape_of(field))) > MAX_SHOWN for field in fields if field.kind == "tensor"):
        return None
    count = max((shape_of(field)[0] for field in fields if field.kind == "tensor"), default=1)
    row = tuple(_sample(field.raw) for field in fields)
    columns = model.signature.columns
    if columns is None:
        row = row if len(row) == 1 else (list(row),)
    return _example(model.signature, columns, [row] * max(1, count), params)


def _example(
    signature: Signature, columns: tuple[str, ...] | None, rows: Sequence[object], params: Mapping[str, object]
) -> Example:
    return Example(signature, columns, _plain(rows, json_form), _plain(rows, _ascii), _plain(params, _ascii))


def _sample(spec: Mapping[str, Any]) -> object:
    """A sample value of the type; for a tensor, one row."""
    kind = spec.get("type")
    if kind == "tensor":
        return _sample_tensor(spec)
    if kind == "array":
        return [_sample(spec.get("items") or {})]
    if kind == "map":
        return {"key": _sample(spec.get("values") or {})}
    if kind == "object":
        return {name: _sample(member) for name, member in (spec.get("properties") or {}).items()}
    return _SAMPLES.get(str(kind), "anything")


def _sample_tensor(spec: Mapping[str, Any]) -> object:
    tensor = spec.get("tensor-spec") or {}
    dtype = str(tensor.get("dtype"))
    value: object = True if dtype == "bool" else 1 if "int" in dtype else 1.5 if dtype.startswith("float") else "a"
    sizes = [2 if size == -1 else size for size in (tensor.get("shape") or (-1,))[1:]]
    return np.full(sizes, value, object).tolist()


def _plain(value: object, otherwise: Callable[[Any], object]) -> Any:
    """`value` as plain JSON types: non-finite numbers become null, `otherwise` converts types that JSON lacks."""
    return orjson.loads(orjson.dumps(value, default=otherwise, option=orjson.OPT_NON_STR_KEYS))


def _ascii(value: bytes) -> str:
    """Bytes as ASCII text; a placeholder for other bytes, which these forms cannot express."""
    return value.decode("ascii") if value.isascii() else "bytes"


def _csv_field(value: object) -> object:
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else "" if value is None else value


def _tensor(field: Field, name: str | None, values: Sequence[object]) -> JsonObject:
    """An input tensor of the protocol; arrays, objects and maps in a column become JSON text."""
    nested = field.kind in _NESTED
    shape, leaves = rectangle([json.dumps(value) if nested else value for value in values])
    base64_text = {"parameters": {"content_type": "base64"}} if field.kind == "binary" else {}
    return {
        "name": name or field.name or INPUT,
        "shape": list(shape),
        "datatype": "BYTES" if nested else datatype_of(field) or "BYTES",
        **base64_text,
        "data": leaves,
    }
