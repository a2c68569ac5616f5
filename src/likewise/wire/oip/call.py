"""Decoded `infer` requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from likewise.wire.call import DecodedRequest


@dataclass(frozen=True, slots=True)
class InferCall(DecodedRequest):
    """A decoded request: its rows, cast to the model's signature, and the options of the response.

    params: the request's `parameters` that the model takes.
    outputs: the requested outputs, in order, and whether each is binary; empty means all outputs.
    binary_output: whether outputs are binary by default, that is, if their own entry does not specify it (None).
    """

    id: str | None = None
    outputs: Mapping[str, bool | None] = field(default_factory=dict)
    binary_output: bool = False
