"""Fine-tuning on a small real model: it learns, equal seeds give equal weights; the data are the known ones."""

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
    """A model this small only waits for its threads."""
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


def test_it_learns_what_can_be_learnt(backbone: Path) -> None:
    tuned = tune(backbone)
    assert tuned.accuracy > 0.95
    assert tuned.model.config.id2label == {0: "negative", 1: "positive"}


def test_equal_seeds_give_equal_weights_and_others_do_not(backbone: Path) -> None:
    first, second, other = (tune(backbone, epochs=1, seed=seed).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_frozen_layers_stay_as_they_were(backbone: Path) -> None:
    before = AutoModelForSequenceClassification.from_pretrained(backbone).state_dict()
    after = tune(backbone, epochs=1, trained_layers=1).model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in changed if "embeddings" in name or "layer.0" in name]
    assert [name for name in changed if "layer.1" in name]
    assert [name for name in changed if "pooler" in name]
    everything = tune(backbone, epochs=1, trained_layers=None).model.state_dict()
    assert not [name for name in before if "layer.0" in name and torch.equal(before[name], everything[name])]


def test_layers_are_kept_from_below(backbone: Path) -> None:
    assert tune(backbone, epochs=1, layers=1, trained_layers=1).model.config.num_hidden_layers == 1


def test_progress_is_told(backbone: Path) -> None:
    told: list[tuple[int, int]] = []
    fine_tune(Recipe(str(backbone), tokens=16), ROWS, lambda done, total, _: told.append((done, total)))
    assert told == [(done, 5) for done in range(1, 6)]


def test_a_backbone_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        fine_tune(Recipe(str(tmp_path / "nowhere")), ROWS)


def test_the_reviews_are_the_known_ones() -> None:
    assert Counter(review.label for review in data.reviews()) == {0: 4265, 1: 4265}
    assert Counter(review.label for review in data.reviews("imdb")) == {0: 12500, 1: 12500}


def test_the_split_is_fixed_and_whole() -> None:
    rows = [data.Review(str(number), number % 2) for number in range(1000)]
    first, second = data.split(rows), data.split(rows)
    assert first == second
    assert len(first.held_out) == 100
    assert sorted([*first.train, *first.held_out], key=lambda row: int(row.text)) == rows
    assert data.split(rows, seed=9) != first


@pytest.mark.parametrize("name", ["REVIEWS_SHA256", "WEIGHTS_SHA256"])
def test_other_bytes_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(data, name, "sha256:0")
    with pytest.raises(InputInvalid, match=r"expected sha256:0, found sha256:[0-9a-f]{64}") as refused:
        data.reviews() if name == "REVIEWS_SHA256" else data.backbone()
    assert "--force-reinstall" in refused.value.remedy
