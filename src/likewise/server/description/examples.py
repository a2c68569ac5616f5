"""One small request in each of its forms: the model's own example, or one made up from the signature's types."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from likewise.core.errors import LikewiseError
from likewise.core.items import Table
from likewise.core.signature import Field, Signature
from likewise.server.model import ServedModel
from likewise.wire import decode
from likewise.wire.oip.declared import INPUT, datatype_of
from likewise.wire.tensor import shape_of

Json = dict[str, Any]

LARGEST = 4000  # characters of an example that is shown
_ROWS = 2
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
    """A table with one to two rows, and params; the properties write it in the forms of `POST /invocations`."""

    signature: Signature
    table: Table
    params: Mapping[str, object]

    @property
    def records(self) -> list[Json] | None:
        """A record a row; None where the columns have no names."""
        names = self.table.columns
        return None if names is None else [dict(zip(names, _row(row), strict=True)) for row in self.table.rows]

    @property
    def split(self) -> Json | None:
        """pandas' split orient; None for a tensor of no fixed width."""
        rows = [_row(row) for row in self.table.rows]
        if self.table.columns is not None:
            return {"columns": list(self.table.columns), "data": rows}
        fields = self.signature.inputs or ()
        if self.signature.is_tensor:
            fixed = -1 not in shape_of(fields[0])[1:]
            return {"data": [_flat(row[0]) for row in rows]} if fixed else None
        return {"data": [row[0] if len(fields) > 1 else row for row in rows]}

    @property
    def instances(self) -> object:
        """Records; or values without names where there is one column of plain values."""
        fields = self.signature.inputs or ()
        values = [_row(row, ascii_bytes=True) for row in self.table.rows]
        names = self.table.columns
        bare = len(fields) == 1 and fields[0].kind not in ("object", "map", "any")
        if names is None or bare:
            return [row[0] for row in values]
        return [dict(zip(names, row, strict=True)) for row in values]

    @property
    def inputs(self) -> object:
        """Columns of values; one row's values where a cell is itself a list or an object."""
        names = self.table.columns
        if names is None:
            return self.instances
        rows = [_row(row, ascii_bytes=True) for row in self.table.rows]
        if any(field.kind in ("array", "object", "map") for field in self.signature.inputs or ()):
            return dict(zip(names, rows[0], strict=True))
        return {name: [row[at] for row in rows] for at, name in enumerate(names)}

    @property
    def csv(self) -> str | None:
        """A header and a line a row; None where the columns have no names."""
        if self.table.columns is None:
            return None
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.table.columns)
        writer.writerows([_field(value) for value in _row(row)] for row in self.table.rows)
        return text.getvalue()

    @property
    def infer(self) -> Json | None:
        """A body of the Open Inference Protocol; None for a model without a signature."""
        fields = self.signature.inputs
        if not fields or (self.table.columns is None and len(fields) > 1):
            return None
        held = self.table.columns or (None,)
        known = {field.name: field for field in fields}
        tensors = [
            _tensor(known.get(name, fields[0]), name, [row[at] for row in self.table.rows])
            for at, name in enumerate(held)
        ]
        return {"inputs": tensors, **({"parameters": _named(self.params)} if self.params else {})}

    def bodies(self) -> dict[str, Json]:
        """MLflow's forms by name, each a whole body; `params` where the model takes any."""
        held = {
            "dataframe_split": self.split,
            "dataframe_records": self.records,
            "instances": self.instances,
            "inputs": self.inputs,
        }
        params = {"params": _named(self.params)} if self.params else {}
        return {form: {form: value, **params} for form, value in held.items() if value is not None}


def example_of(model: ServedModel) -> Example | None:
    """The first rows of the model's example, where it is short and can be read, else made up; None where too large."""
    for make in (_logged, _made_up):
        example = make(model)
        if example is not None and len(json.dumps(example.instances)) <= LARGEST:
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
    plain = call.table.sent is None and rows
    return Example(model.signature, Table(call.table.columns, rows), call.params) if plain else None


def _made_up(model: ServedModel) -> Example | None:
    fields = model.signature.inputs or ()
    params = {str(field.name): field.raw.get("default") for field in model.signature.params or ()}
    if not fields:
        return Example(model.signature, Table(("column",), [("some text",)]), params)
    if any(math.prod(map(abs, shape_of(field))) > LARGEST for field in fields if field.kind == "tensor"):
        return None
    count = max((shape_of(field)[0] for field in fields if field.kind == "tensor"), default=1)
    row = tuple(_sample(field.raw) for field in fields)
    columns = model.signature.columns
    if columns is None:
        row = row if len(row) == 1 else (list(row),)
    return Example(model.signature, Table(columns, [row] * max(1, count)), params)


def _sample(spec: Mapping[str, Any]) -> object:
    """A value of the type; of a tensor one row."""
    kind = spec.get("type")
    if kind == "tensor":
        return _sample_tensor(spec)
    if kind == "array":
        return [_sample(spec.get("items") or {})]
    if kind == "map":
        return {"key": _sample(spec.get("values") or {})}
    if kind == "object":
        return {name: _sample(held) for name, held in (spec.get("properties") or {}).items()}
    return _SAMPLES.get(str(kind), "anything")


def _sample_tensor(spec: Mapping[str, Any]) -> object:
    held = spec.get("tensor-spec") or {}
    dtype = str(held.get("dtype"))
    value: object = True if dtype == "bool" else 1 if "int" in dtype else 1.5 if dtype.startswith("float") else "a"
    for size in reversed((held.get("shape") or (-1,))[1:]):
        value = [value] * (2 if size == -1 else size)
    return value


def _row(values: Sequence[object], *, ascii_bytes: bool = False) -> list[Any]:
    return [_plain(value, ascii_bytes) for value in values]


def _plain(value: object, ascii_bytes: bool = False) -> Any:
    """As JSON has it: bytes as base64, or as ASCII text where the form wants that, dates as ISO 8601."""
    if isinstance(value, bytes):
        return _ascii(value) if ascii_bytes else base64.b64encode(value).decode()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(member, ascii_bytes) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(element, ascii_bytes) for element in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _ascii(value: bytes) -> str:
    return value.decode("ascii") if value.isascii() else "bytes"


def _flat(value: object) -> list[Any]:
    return [leaf for part in value for leaf in _flat(part)] if isinstance(value, list) else [value]


def _field(value: object) -> object:
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else "" if value is None else value


def _named(params: Mapping[str, object]) -> Json:
    return {name: _plain(value, ascii_bytes=True) for name, value in params.items()}


def _tensor(field: Field, name: str | None, values: Sequence[object]) -> Json:
    """An input of the protocol: arrays, objects and maps of a column are JSON text."""
    nested = field.kind in ("array", "object", "map")
    rows = [json.dumps(_plain(value)) if nested else _plain(value) for value in values]
    shape, level = [len(rows)], rows[0]
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    datatype = "BYTES" if nested else datatype_of(field) or "BYTES"
    base64_text = {"parameters": {"content_type": "base64"}} if field.kind == "binary" else {}
    return {
        "name": name or field.name or INPUT,
        "shape": shape,
        "datatype": datatype,
        **base64_text,
        "data": _flat(rows),
    }
