"""Fine-tunes a sequence classifier on reviews with a plain torch loop; equal seeds give equal results."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import transformers

from likewise.core.errors import ModelNotFound
from likewise.demo.data import BUNDLED, LABELS, Review, ReviewSplit, backbone

Progress = Callable[[int, int, float], None]
"""Called with (batches done, total batches, loss of the last batch)."""

Tensors = Callable[[Iterable[Sequence[Review]]], Iterator[tuple[Any, Any]]]
"""Converts batches of reviews to (inputs, labels)."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyperparameters.

    backbone: the included one, a folder, or a Hugging Face name. layers: use only this many of its first layers; None
    for all. body_rate, head_rate: the highest learning rates, which are reached after a tenth of the batches and then
    decrease linearly to 0.
    """

    backbone: str = BUNDLED
    layers: int | None = None
    epochs: int = 1
    batch_rows: int = 32
    tokens: int = 64
    body_rate: float = 1e-4
    head_rate: float = 1e-3
    seed: int = 8


@dataclass(frozen=True, slots=True)
class FineTuned:
    """A trained model with its tokenizer, and the fraction of held-out rows that it labels correctly."""

    model: Any
    tokenizer: Any
    accuracy: float


def fine_tune(recipe: Recipe, rows: ReviewSplit, progress: Progress = lambda *_: None) -> FineTuned:
    """Train on `rows.train`, evaluate on `rows.held_out`. Raises ModelNotFound if the backbone cannot be loaded."""
    torch.manual_seed(recipe.seed)
    model, tokenizer = _load(recipe)
    tensors = partial(_tensors, tokenizer, recipe.tokens)
    _train(model, tensors, rows.train, recipe, progress)
    return FineTuned(model, tokenizer, _accuracy(model, tensors, rows.held_out))


def _load(recipe: Recipe) -> tuple[Any, Any]:
    name = backbone(recipe.backbone)
    names = dict(enumerate(LABELS))
    options: dict[str, Any] = {"id2label": names, "label2id": {label: number for number, label in names.items()}}
    if recipe.layers is not None:
        options["num_hidden_layers"] = recipe.layers
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # hides warnings about the new head and dropped layers
    try:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            name, num_labels=len(LABELS), dtype=torch.float32, use_safetensors=True, **options
        )
        return model, transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ModelNotFound(
            f"cannot load the backbone {recipe.backbone!r}: {error}",
            remedy=f"pass a folder, a Hugging Face name, or {BUNDLED}",
        ) from error


def _tensors(tokenizer: Any, tokens: int, batches: Iterable[Sequence[Review]]) -> Iterator[tuple[Any, Any]]:
    """(inputs, labels) for each batch of reviews, padded to the longest text of the batch."""
    for batch in batches:
        texts = [row.text for row in batch]
        inputs = tokenizer(texts, truncation=True, max_length=tokens, padding=True, return_tensors="pt")
        yield inputs, torch.tensor([row.label for row in batch])


def _train(model: Any, tensors: Tensors, rows: Sequence[Review], recipe: Recipe, progress: Progress) -> None:
    optimizer = torch.optim.AdamW(_parameters(model, recipe))
    rng = random.Random(recipe.seed)  # noqa: S311  not used for security
    batches = list(tensors(_shuffled(rows, recipe.batch_rows, rng)))
    turns = [number for _ in range(recipe.epochs) for number in rng.sample(range(len(batches)), len(batches))]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, total=len(turns)))
    model.train()
    for done, number in enumerate(turns, start=1):
        inputs, labels = batches[number]
        with _half_precision():
            loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress(done, len(turns), loss.item())


def _rate(step: int, *, total: int) -> float:
    """The learning rate relative to the highest one."""
    rising = max(1, total // 10)
    return (step + 1) / rising if step < rising else (total - step) / max(1, total - rising)


def _half_precision() -> Any:
    """A context: mixed precision if the CPU has native bfloat16 multiplication (three times as fast), else fp32."""
    cpu = torch.cpu.get_capabilities()
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16")))


def _shuffled(rows: Sequence[Review], size: int, rng: random.Random) -> list[Sequence[Review]]:
    """Random batches of rows with similar lengths, which halves the padding."""
    pools = _chunks(rng.sample(rows, len(rows)), 16 * size)
    batches = [batch for pool in pools for batch in _chunks(_by_length(pool), size)]
    rng.shuffle(batches)
    return batches


def _by_length(rows: Sequence[Review]) -> list[Review]:
    return sorted(rows, key=lambda row: len(row.text))


def _chunks(rows: Sequence[Review], size: int) -> Iterator[Sequence[Review]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _parameters(model: Any, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameter groups for the optimizer: the head, and the layers; the words' embeddings are kept as they are."""
    model.get_input_embeddings().requires_grad_(False)
    in_body = {id(each) for each in model.base_model.parameters()}
    trained = [each for each in model.parameters() if each.requires_grad]
    return [
        {"params": [each for each in trained if id(each) not in in_body], "lr": recipe.head_rate},
        {"params": [each for each in trained if id(each) in in_body], "lr": recipe.body_rate},
    ]


def _accuracy(model: Any, tensors: Tensors, rows: Sequence[Review]) -> float:
    model.eval()
    with torch.inference_mode():
        matches = (
            model(**inputs).logits.argmax(dim=1) == labels for inputs, labels in tensors(_chunks(_by_length(rows), 32))
        )
        correct = sum(int(each.sum()) for each in matches)
    return correct / len(rows)
