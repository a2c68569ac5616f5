"""A text classifier small enough to be created in every test run: random weights, a vocabulary of characters."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification

POSITIONS = 64
TEXTS = [
    "This is the best movie we saw.",
    "What a movie!",
    "",
    "a",
    "naïve café, 这部电影 😀",
    "the plot thickens\nand then it thins",
    "word " * 200,
    *(f"{'dull ' * n}and {'bright ' * (7 - n)}number {n}" for n in range(8)),
]


def make_classifier(folder: Path, *, labels: tuple[str, ...] = ("negative", "positive"), seed: int = 1) -> Path:
    """Write a Hugging Face model folder: config, safetensors and tokenizer.

    Its weights have a large variance, so that TEXTS get all labels.
    """
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        initializer_range=0.3,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _tokenizer() -> Tokenizer:
    letters = string.ascii_letters + string.digits + string.punctuation
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    tokenizer.enable_padding(length=128)  # as in many published tokenizers; the engine must ignore it
    return tokenizer
