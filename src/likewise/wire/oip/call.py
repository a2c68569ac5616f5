"""What a decoded `infer` request is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from likewise.wire.call import DecodedRequest


@dataclass(frozen=True, slots=True)
class InferCall(DecodedRequest):
    """One request, read: its rows, fitted to the model's signature, and how its asker wants the answer.

    params: of the request's `parameters`, those that the model takes.
    outputs: the outputs that were asked for, in that order, and whether each is binary; none means all of them.
    binary_output: whether an output goes into the binary tail where its own entry does not say (None).
    """

    id: str | None = None
    outputs: Mapping[str, bool | None] = field(default_factory=dict)
    binary_output: bool = False
