"""What a decoded `infer` request is."""

from __future__ import annotations

from dataclasses import dataclass, field

from likewise.core.items import Params, Table


@dataclass(frozen=True, slots=True)
class AskedOutput:
    """One entry of the request's `outputs`; binary is None where it leaves that to `binary_data_output`."""

    name: str
    binary: bool | None = None


@dataclass(frozen=True, slots=True)
class InferCall:
    """One request, read: its rows, fitted to the model's signature, and how its asker wants the answer.

    params: of the request's `parameters`, those that the model takes.
    outputs: the outputs that were asked for, in that order; none means all of them.
    binary_output: whether an output goes into the binary tail where its own entry does not say.
    """

    table: Table
    params: Params = field(default_factory=dict)
    id: str | None = None
    outputs: tuple[AskedOutput, ...] = ()
    binary_output: bool = False
