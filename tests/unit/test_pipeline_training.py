"""Fine-tuning a small real model: it learns, and equal seeds give equal weights; the data sets are as expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.classifier import make_classifier
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from likewise.core.errors import InputInvalid, ModelNotFound
from likewise.demo import data
from likewise.demo.training import FineTuned, Recipe, fine_tune

ROWS = data.ReviewSplit(
    train=[data.Review(f"{('bad', 'good')[number % 2]} film {number}", number % 2) for number in range(160)],
    held_out=[data.Review(f"{('bad', 'good')[number % 2]} film {number}", number % 2) for number in range(160, 200)],
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads only slow down such a small model."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_classifier(tmp_path_factory.mktemp("backbone"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")
    tokenizer.save_pretrained(folder)
    return folder


def tune(backbone: Path, **options: int | None) -> FineTuned:
    recipe = Recipe(str(backbone), tokens=16, batch_rows=16, epochs=4, body_rate=2e-3, head_rate=1e-2)
    return fine_tune(replace(recipe, **options), ROWS)  # type: ignore[arg-type]


def test_model_learns(backbone: Path) -> None:
    tuned = tune(backbone)
    assert tuned.accuracy > 0.95
    assert tuned.model.config.id2label == {0: "negative", 1: "positive"}


def test_equal_seeds_give_equal_weights(backbone: Path) -> None:
    first, second, other = (tune(backbone, epochs=1, seed=seed).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_all_layers_learn_and_the_embeddings_of_words_stay(backbone: Path) -> None:
    before = AutoModelForSequenceClassification.from_pretrained(backbone).state_dict()
    after = tune(backbone, epochs=1).model.state_dict()
    words = [name for name in before if "word_embeddings" in name]
    assert words
    assert all(torch.equal(before[name], after[name]) for name in words)
    assert not [name for name in before if "layer." in name and torch.equal(before[name], after[name])]


def test_lowest_layers_are_used(backbone: Path) -> None:
    assert tune(backbone, epochs=1, layers=1).model.config.num_hidden_layers == 1


def test_progress_is_reported(backbone: Path) -> None:
    reported: list[tuple[int, int]] = []
    fine_tune(Recipe(str(backbone), tokens=16), ROWS, lambda done, total, _: reported.append((done, total)))
    assert reported == [(done, 5) for done in range(1, 6)]


def test_missing_backbone_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        fine_tune(Recipe(str(tmp_path / "nowhere")), ROWS)


def test_data_sets_have_the_expected_labels() -> None:
    assert Counter(review.label for review in data.reviews()) == {0: 4265, 1: 4265}
    assert Counter(review.label for review in data.reviews("imdb")) == {0: 12500, 1: 12500}


def test_split_is_deterministic_and_complete() -> None:
    rows = [data.Review(str(number), number % 2) for number in range(1000)]
    first, second = data.split(rows), data.split(rows)
    assert first == second
    assert len(first.held_out) == 100
    assert sorted([*first.train, *first.held_out], key=lambda row: int(row.text)) == rows
    assert data.split(rows, seed=9) != first


@pytest.mark.parametrize("name", ["REVIEWS_SHA256", "WEIGHTS_SHA256"])
def test_files_with_a_different_digest_are_rejected(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(data, name, "sha256:0")
    with pytest.raises(InputInvalid, match=r"expected sha256:0, found sha256:[0-9a-f]{64}") as refused:
        data.reviews() if name == "REVIEWS_SHA256" else data.backbone()
    assert "--force-reinstall" in refused.value.remedy
