"""Fine-tuning a sequence classifier on reviews: a plain torch loop, the same result for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from likewise.core.errors import ModelNotFound, WrongUsage
from likewise.demo.data import BUNDLED, LABELS, Review, Split, backbone

Progress = Callable[[int, int, float], None]
"""(batches done, batches in all, loss of the last one)."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to fine-tune.

    backbone: the bundled one, a folder, or a Hugging Face name. layers: how many of its layers are kept, from below.
    trained_layers: how many of those, from above, are trained beside the head. None means all, twice.
    """

    backbone: str = BUNDLED
    layers: int | None = None
    trained_layers: int | None = 2
    epochs: int = 1
    batch_rows: int = 32
    tokens: int = 64
    body_rate: float = 2e-4
    head_rate: float = 1e-3
    seed: int = 8


QUICK = Recipe(layers=2)


@dataclass(frozen=True, slots=True)
class FineTuned:
    """A trained model with its tokenizer, and the share of held-out rows that it labels right."""

    model: Any
    tokenizer: Any
    accuracy: float


def fine_tune(recipe: Recipe, rows: Split, progress: Progress = lambda *_: None) -> FineTuned:
    """Train on `rows.train`, measure on `rows.held_out`. Raises ModelNotFound where the backbone cannot be loaded."""
    torch.manual_seed(recipe.seed)
    model, tokenizer = _load(recipe)
    batches = _Batches(tokenizer, recipe)
    _train(model, batches, rows.train, recipe, progress)
    return FineTuned(model, tokenizer, _accuracy(model, batches, rows.held_out))


def _load(recipe: Recipe) -> tuple[Any, Any]:
    name = backbone(recipe.backbone)
    names = dict(enumerate(LABELS))
    options: dict[str, Any] = {"id2label": names, "label2id": {label: number for number, label in names.items()}}
    if recipe.layers is not None:
        options["num_hidden_layers"] = recipe.layers
    transformers.utils.logging.set_verbosity_error()  # that the head is new, and layers are cut, is the point
    try:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            name, num_labels=len(LABELS), dtype=torch.float32, use_safetensors=True, **options
        )
        return model, transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ModelNotFound(
            f"no backbone {recipe.backbone!r}: {error}", remedy=f"pass a folder, a Hugging Face name, or {BUNDLED}"
        ) from error


class _Batches:
    """Tokenized tensors out of reviews."""

    def __init__(self, tokenizer: Any, recipe: Recipe) -> None:
        self._tokenizer, self._recipe = tokenizer, recipe

    def of(self, rows: Sequence[Review]) -> Iterator[tuple[Any, Any]]:
        """(inputs, labels) of `batch_rows` rows at a time, padded to the longest of them."""
        for batch in _chunks(rows, self._recipe.batch_rows):
            inputs = self._tokenizer(
                [row.text for row in batch],
                truncation=True,
                max_length=self._recipe.tokens,
                padding=True,
                return_tensors="pt",
            )
            yield inputs, torch.tensor([row.label for row in batch])


def _shuffled(rows: Sequence[Review], batch_rows: int, rng: random.Random) -> list[Review]:
    """In random order, but for this: rows of a batch have near-equal lengths, which halves the padding."""
    batches = [
        batch
        for pool in _chunks(rng.sample(rows, len(rows)), 16 * batch_rows)
        for batch in _chunks(_by_length(pool), batch_rows)
    ]
    rng.shuffle(batches)
    return [row for batch in batches for row in batch]


def _by_length(rows: Sequence[Review]) -> list[Review]:
    return sorted(rows, key=lambda row: len(row.text))


def _chunks(rows: Sequence[Review], size: int) -> Iterator[Sequence[Review]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _train(model: Any, batches: _Batches, rows: Sequence[Review], recipe: Recipe, progress: Progress) -> None:
    total = -(-recipe.epochs * len(rows) // recipe.batch_rows)
    optimizer = torch.optim.AdamW(_parameters(model, recipe))
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, total // 10, total)
    rng = random.Random(recipe.seed)  # noqa: S311  no secret
    order = (row for _ in range(recipe.epochs) for row in _shuffled(rows, recipe.batch_rows, rng))
    model.train()
    for done, (inputs, labels) in enumerate(batches.of(list(order)), start=1):
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress(done, total, loss.item())


def _parameters(model: Any, recipe: Recipe) -> list[dict[str, Any]]:
    """The head at its rate; the trained layers, and the pooler above them, at theirs; everything else is frozen."""
    body = model.base_model
    head = [each for name, each in model.named_parameters() if not name.startswith(f"{model.base_model_prefix}.")]
    if recipe.trained_layers is not None:
        body.requires_grad_(False)
        for part in (*_layers(model)[-recipe.trained_layers :], getattr(body, "pooler", None)):
            if part is not None:
                part.requires_grad_(True)
    trained = [each for each in body.parameters() if each.requires_grad]
    return [{"params": head, "lr": recipe.head_rate}, {"params": trained, "lr": recipe.body_rate}]


def _layers(model: Any) -> Any:
    """The stack of transformer layers, wherever the architecture keeps it."""
    count = model.config.num_hidden_layers
    lists = (module for module in model.base_model.modules() if isinstance(module, torch.nn.ModuleList))
    found = next((each for each in lists if len(each) == count), None)
    if found is None:
        raise WrongUsage(
            f"{type(model).__name__} keeps its layers in no list", remedy="pass --all-layers, or another backbone"
        )
    return found


def _accuracy(model: Any, batches: _Batches, rows: Sequence[Review]) -> float:
    model.eval()
    with torch.inference_mode():
        right = sum(
            int((model(**inputs).logits.argmax(dim=1) == labels).sum())
            for inputs, labels in batches.of(_by_length(rows))
        )
    return right / len(rows)
