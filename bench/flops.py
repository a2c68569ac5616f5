"""Number of operations in a forward pass of a BERT-like encoder, for comparison with the machine's matrix rate."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Encoder:
    """Sizes of an encoder. hidden: width h; ffn: inner width of the feed-forward part; layers: their number."""

    hidden: int
    ffn: int
    layers: int

    @classmethod
    def read(cls, config: Path) -> Encoder:
        """Read the sizes from a `config.json` of transformers."""
        document = json.loads(config.read_text(encoding="utf-8"))
        return cls(document["hidden_size"], document["intermediate_size"], document["num_hidden_layers"])

    def flop(self, tokens: int) -> float:
        """Floating-point operations for a text of this length; a multiplication and an addition count as two.

        2 tokens (4 h^2 + 2 h ffn) layers for the products with weights (query, key, value, output; the feed-forward
        part's two), and 4 tokens^2 h layers for attention's two products. Embeddings, norms, softmax and the
        classifier's head are left out. The count is for the whole model, even if an engine skips parts of it.
        """
        weights = 2 * tokens * (4 * self.hidden**2 + 2 * self.hidden * self.ffn)
        return float((weights + 4 * tokens**2 * self.hidden) * self.layers)

    def mean_flop(self, tokens: Iterable[int]) -> float:
        """The mean over texts with these numbers of tokens."""
        each = [self.flop(one) for one in tokens]
        return sum(each) / len(each)
