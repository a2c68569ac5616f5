"""What a forward pass of a BERT-like encoder computes, to hold engines against the machine's matrix rate."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Encoder:
    """hidden: width h; ffn: width of the inner layer of the feed-forward part; layers: how many."""

    hidden: int
    ffn: int
    layers: int

    @classmethod
    def read(cls, config: Path) -> Encoder:
        """From a `config.json` of transformers."""
        held = json.loads(config.read_text(encoding="utf-8"))
        return cls(held["hidden_size"], held["intermediate_size"], held["num_hidden_layers"])

    def flop(self, tokens: int) -> float:
        """Floating-point operations of one text of so many tokens, a multiplication and an addition counting as two.

        2 tokens (4 h^2 + 2 h ffn) layers for the products with weights (query, key, value, output; the feed-forward
        part's two), and 4 tokens^2 h layers for attention's two products. Embeddings, norms, softmax and the
        classifier's head are left out. It is the whole model's: an engine that leaves something out gets no discount.
        """
        weights = 2 * tokens * (4 * self.hidden**2 + 2 * self.hidden * self.ffn)
        return float((weights + 4 * tokens**2 * self.hidden) * self.layers)

    def mean_flop(self, tokens: Iterable[int]) -> float:
        """Of a text, over texts of so many tokens each."""
        each = [self.flop(one) for one in tokens]
        return sum(each) / len(each)
