"""A real text classifier, small enough to be made in every test run: random weights, a vocabulary of letters."""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification

from likewise.bundles.format import EngineEntry, Manifest, Reference
from likewise.bundles.write import write_manifest
from likewise.core.digests import sha256_json
from likewise.engine.text import find_checkpoint
from likewise.engine.text.compiled import EXACT, compile_classifier, place
from likewise.pipeline import Cache, Classify, DetectLanguage, Pipeline, Respond

CLASSIFIER = "runs:/0123/model"  # as the pipeline below names it
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
    """A Hugging Face folder with config, safetensors and tokenizer. Its head is loud, so that texts get both labels."""
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


def as_mlflow_flavour(plain: Path, folder: Path) -> Path:
    """The same files where MLflow's `transformers` flavour puts them."""
    shutil.copytree(plain, folder / "model", ignore=shutil.ignore_patterns("tokenizer*"))
    (folder / "components" / "tokenizer").mkdir(parents=True)
    shutil.copy(plain / "tokenizer.json", folder / "components" / "tokenizer")
    (folder / "MLmodel").write_text(json.dumps({"flavors": {"transformers": {"model_binary": "model"}}}))
    return folder


def classifier_bundle(folder: Path, *, seed: int = 1, compiled: bool = False) -> Path:
    """A bundle of a declared pipeline: cache, language, the classifier, an answer. It needs no trust.

    compiled: its one engine is OpenVINO in fp32; else it is torch.
    """
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "MLmodel").write_text("flavors: {}\n")
    reference = Reference(CLASSIFIER, "references/classifier", "declared")
    made = make_classifier(folder / reference.path, seed=seed)
    declared = Pipeline(Cache(), DetectLanguage(), Classify(CLASSIFIER), Respond(), uri="runs:/4567/pipeline")
    declaration = declared.declaration()
    if compiled:
        compile_classifier(find_checkpoint(made), folder / place(CLASSIFIER))
    text = json.dumps([{"type": "string", "name": "text", "required": True}])
    manifest = Manifest(
        {},
        references=(reference,),
        signature_raw={"inputs": text, "outputs": text},
        row_wise=True,
        pipeline=declaration,
        engines=(
            EngineEntry(*(("openvino", EXACT) if compiled else ("torch", "fp32")), False, sha256_json(declaration)),
        ),
    )
    return write_manifest(folder, manifest).path


def _tokenizer() -> Tokenizer:
    letters = string.ascii_letters + string.digits + string.punctuation
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    tokenizer.enable_padding(length=128)  # as many published tokenizers do: the engine must not follow
    return tokenizer
