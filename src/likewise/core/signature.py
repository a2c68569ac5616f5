"""A model's signature, parsed from MLflow's `MLmodel` file without importing MLflow.

Source: MLflow's model signature JSON (`signature.inputs`, `.outputs`, `.params` are JSON strings of field lists).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """One column, tensor or parameter.

    kind: MLflow's type name (`string`, `long`, `double`, `boolean`, `datetime`, `binary`, `object`, `array`, `map`,
    `tensor`, …).  `raw` is the field as MLflow wrote it, for nested types, shapes and defaults.
    """

    name: str | None
    kind: str
    required: bool
    raw: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Signature:
    """The model's inputs, outputs and parameters; None for those that it does not declare.

    from_type_hints: whether MLflow derived it from the type hints of `predict`, and validates inputs with those.
    """

    inputs: tuple[Field, ...] | None = None
    outputs: tuple[Field, ...] | None = None
    params: tuple[Field, ...] | None = None
    from_type_hints: bool = False

    @classmethod
    def parse(cls, raw: Mapping[str, object] | None) -> Signature:
        """Parse the `signature` mapping of an `MLmodel` file; raises ValueError if it is invalid."""
        raw = raw or {}
        inputs, outputs, params = (_fields(raw.get(part)) for part in ("inputs", "outputs", "params"))
        return cls(inputs, outputs, params, bool(raw.get("from_type_hints")))

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the input columns, or None if the inputs are unnamed or not declared."""
        if not self.inputs:
            return None
        names = tuple(f.name for f in self.inputs)
        return None if None in names else tuple(str(n) for n in names)

    @property
    def is_tensor(self) -> bool:
        """Whether the inputs are tensors rather than columns."""
        return bool(self.inputs) and all(f.kind == "tensor" for f in self.inputs or ())


def _fields(part: object) -> tuple[Field, ...] | None:
    if part is None:
        return None
    listed = json.loads(part) if isinstance(part, str) else part
    if not isinstance(listed, list):
        raise ValueError(f"each part of a signature must be a list of fields, got {type(listed).__name__}")
    return tuple(_field(entry) for entry in listed)


def _field(entry: object) -> Field:
    if not isinstance(entry, dict) or not isinstance(entry.get("type", entry.get("dtype")), str):
        raise ValueError(f"not a signature field: {entry!r}")
    name = entry.get("name")
    required = entry.get("required", not entry.get("optional", False))
    return Field(None if name is None else str(name), str(entry.get("type", entry.get("dtype"))), bool(required), entry)
