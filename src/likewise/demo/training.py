"""Fine-tunes a sequence classifier on reviews with a plain torch loop; equal seeds give equal results."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import transformers

from likewise.core.errors import ModelNotFound, WrongUsage
from likewise.demo.data import BUNDLED, LABELS, Review, ReviewSplit, backbone

Progress = Callable[[int, int, float], None]
"""Called with (batches done, total batches, loss of the last batch)."""

Tensors = Callable[[Iterable[Sequence[Review]]], Iterator[tuple[Any, Any]]]
"""Converts batches of reviews to (inputs, labels)."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyperparameters.

    backbone: the included one, a folder, or a Hugging Face name. layers: use only this many of its first layers.
    trained_layers: how many of the last of these are trained in addition to the head. For both, None means all.
    The learning rates are constant in the first epoch, and then decrease linearly to 0.
    """

    backbone: str = BUNDLED
    layers: int | None = None
    trained_layers: int | None = 2
    epochs: int = 2
    batch_rows: int = 32
    tokens: int = 64
    body_rate: float = 2e-4
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
    orders = [rng.sample(range(len(batches)), len(batches)) for _ in range(recipe.epochs)]
    turns = [number for order in orders for number in order]
    rate = partial(_rate, first=len(batches), total=len(turns))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train()
    _without_dropout_where_frozen(model)
    frozen = _Frozen(model, recipe.trained_layers)
    for done, number in enumerate(turns, start=1):
        inputs, labels = batches[number]
        with _half_precision(), frozen.skipped(number):
            loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress(done, len(turns), loss.item())


def _rate(step: int, *, first: int, total: int) -> float:
    """The learning rate relative to the initial one: constant for `first` steps, then decreasing to 0."""
    return 1.0 if step < first else (total - step) / max(1, total - first)


class _Frozen:
    """The layers below the trained ones, whose outputs for a batch are computed once: they are equal in each epoch.

    A state takes 4 bytes times tokens times the model's width for each row, for the demo's reviews 0.3 GB.
    """

    def __init__(self, model: Any, trained_layers: int | None) -> None:
        self._layers: Any = [] if trained_layers is None else _layers(model)
        self._frozen = list(self._layers)[:-trained_layers] if trained_layers else []
        self._states: dict[int, Any] = {}

    @contextmanager
    def skipped(self, batch: int) -> Iterator[None]:
        """Within, the model starts at the first trained layer, if it has been called with the batch before."""
        if not self._frozen:
            yield
            return
        count, known = len(self._frozen), batch in self._states
        hook = self._layers[count].register_forward_pre_hook(partial(self._replace, batch))
        if known:
            del self._layers[:count]
        try:
            yield
        finally:
            hook.remove()
            for index, layer in enumerate(self._frozen if known else ()):
                self._layers.insert(index, layer)

    def _replace(self, batch: int, _: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._states.setdefault(batch, inputs[0].detach()), *inputs[1:])


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
    """Parameter groups for the optimizer: the head, and the trained layers with the pooler; freezes the rest."""
    body = model.base_model
    if recipe.trained_layers is not None:
        body.requires_grad_(False)
        _layers(model)[-recipe.trained_layers :].requires_grad_(True)
        if getattr(body, "pooler", None) is not None:
            body.pooler.requires_grad_(True)
    in_body = {id(each) for each in body.parameters()}
    head = [each for each in model.parameters() if id(each) not in in_body]
    trained = [each for each in body.parameters() if each.requires_grad]
    return [{"params": head, "lr": recipe.head_rate}, {"params": trained, "lr": recipe.body_rate}]


def _without_dropout_where_frozen(model: Any) -> None:
    """Disable dropout in frozen layers: they cannot learn from it, and it adds noise for the other layers."""
    for module in model.modules():
        frozen = not any(each.requires_grad for each in module.parameters())
        if frozen and next(module.parameters(), None) is not None:
            module.eval()


def _layers(model: Any) -> Any:
    """The list of transformer layers, in any architecture; WrongUsage if there is none."""
    count = model.config.num_hidden_layers
    lists = (module for module in model.base_model.modules() if isinstance(module, torch.nn.ModuleList))
    layers = next((each for each in lists if len(each) == count), None)
    if layers is None:
        raise WrongUsage(
            f"{type(model).__name__} has no list of its layers, so single layers cannot be trained",
            remedy="pass --all-layers, or another backbone",
        )
    return layers


def _accuracy(model: Any, tensors: Tensors, rows: Sequence[Review]) -> float:
    model.eval()
    with torch.inference_mode():
        matches = (
            model(**inputs).logits.argmax(dim=1) == labels for inputs, labels in tensors(_chunks(_by_length(rows), 32))
        )
        correct = sum(int(each.sum()) for each in matches)
    return correct / len(rows)
