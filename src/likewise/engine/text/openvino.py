"""The fast forward pass: OpenVINO on the CPU in bf16 or fp32, without torch or transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from likewise.core.extras import need
from likewise.engine.openvino_graph import Graph, Texts, open_graph, write_graph
from likewise.engine.text.checkpoint import Checkpoint
from likewise.engine.text.torch_forward import Forward, load_torch

MASK = 1
"""The position of the mask among the inputs of the graph."""

Probe = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Ids and mask, both [batch, length]."""


def convert(checkpoint: Checkpoint, folder: Path) -> None:
    """Write `model.xml` and `model.bin` (fp32 weights, dynamic [batch, length]) into `folder`, for `read_graph`.

    The same checkpoint gives the same bytes. Raises MissingExtra without torch, transformers and openvino, ModelInvalid
    if the checkpoint does not load, EngineUnavailable if OpenVINO does not support the architecture or its fp32 logits
    differ from torch's.
    """
    model = load_torch(checkpoint)
    probes = _probes(checkpoint, int(model.config.vocab_size))
    write_graph(_logits(model), probes, folder, texts=Texts(MASK, checkpoint.max_tokens))


def open_openvino(graph: Graph, *, precision: str, threads: int | None = None) -> Forward:
    """The forward pass of `graph`; see `open_graph`."""
    compute = open_graph(graph, precision, texts=Texts(MASK, graph.longest), threads=threads)

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        return compute([ids, mask])[0]

    return forward


def _probes(checkpoint: Checkpoint, vocabulary: int) -> list[Probe]:
    """Ids and masks for tracing and comparing, with and without padding, in several shapes."""
    random = np.random.default_rng(0)
    probes = []
    for rows, length in ((2, 8), (3, 16), (1, 5)):
        length = min(length, checkpoint.max_tokens)
        lengths = np.linspace(length, 1, rows).round()[:, None]
        mask = (np.arange(length)[None, :] < lengths).astype(np.int64)
        ids = np.where(mask == 1, random.integers(0, vocabulary, mask.shape), checkpoint.pad_id)
        probes.append((ids, mask))
    return probes


def _logits(model: Any) -> Any:
    torch = need("torch", extra="torch")

    class Logits(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask).logits

    return Logits().eval()
