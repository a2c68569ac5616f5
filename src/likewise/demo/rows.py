"""The rows that the demo scores: reviews, a few of them twice, and a few in other languages."""

from __future__ import annotations

import csv
from pathlib import Path

from likewise.demo.data import reviews, split

FOREIGN = (
    "Ce film est une merveille, les acteurs sont excellents du début à la fin.",
    "Der Film war langweilig, und die Geschichte ergibt überhaupt keinen Sinn.",
    "Una película preciosa que recomiendo a todo el mundo sin ninguna duda.",
    "这部电影非常精彩，演员的表演令人难忘。",
)
REPEATED = 6


def write_rows(path: Path, count: int) -> None:
    """A CSV with the columns `row` (0, 1, …) and `text`: held-out reviews first, then others, then the odd ones."""
    parts = split(reviews())
    texts = [review.text for review in (*parts.held_out, *parts.train)]
    odd = [*FOREIGN, *texts[:REPEATED]][: max(0, count - 1)]
    chosen = [*texts[: count - len(odd)], *odd]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["row", "text"])
        writer.writerows(enumerate(chosen))
