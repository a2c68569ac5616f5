"""Each engine of the bundle alone, beside what the machine's matrix units give in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import likewise
from bench.bare import bare
from bench.child import Child, child
from bench.flops import Encoder
from bench.matrix import PRECISIONS, ROWS
from bench.model import subject, texts
from bench.options import Options
from bench.servers import CHECKOUT
from likewise.bundles.open import Bundle
from likewise.engine.text.checkpoint import find_checkpoint
from likewise.pipeline.pipeline import classifiers

REVIEWS = 512
WARMING = 128  # of them, before the first round
RATES = ("rows_per_s", "with_tokenization_rows_per_s", "tokenization_rows_per_s")
FIGURES = (*RATES, "share_of_matrix_rate")

Matrix = Mapping[str, Mapping[str, float]]
Rounds = list[dict[str, Any]]


def engines(options: Options) -> dict[str, object]:
    """Rows a second by engine, the matrix rate measured between them, and what share of it each reaches.

    Every engine is a process of its own, loaded once; in each round each is asked in turn, and the matrices after it.
    """
    bundle = likewise.open_bundle(subject().bundle)
    reviews, encoder = texts(options.reviews or REVIEWS), _encoder(bundle)
    isa = {"ONEDNN_MAX_CPU_ISA": options.isa} if options.isa else {}
    with ExitStack() as stack:
        asked = {
            label: stack.enter_context(bare(bundle.path, *how, environment=isa)) for label, how in _engines(bundle)
        }
        opened = {label: engine.ask(do="open") for label, engine in asked.items()}
        usable = {label: asked[label] for label, said in opened.items() if "engine" in said}
        matrix = stack.enter_context(child("bench.matrix", str(encoder.hidden), str(encoder.ffn), environment=isa))
        taken, matrices = _alternating(usable, matrix, reviews, options.rounds or 3)
    flop = encoder.mean_flop(next(iter(taken.values()))[0]["tokens"])
    for label, rounds in taken.items():
        for one in rounds:
            one["share_of_matrix_rate"] = share(one["rows_per_s"], flop, label, one["matrices"])
    return {
        "isa": options.isa or "not limited",
        "reviews": len(reviews),
        "gflop_per_review": round(flop / 1e9, 3),
        "matrix_tflops": _tera(matrices),
        "engines": {label: _medians(rounds) for label, rounds in taken.items()},
        "unavailable": {label: _why(said) for label, said in opened.items() if "unavailable" in said},
        "rounds": {label: [{key: one[key] for key in FIGURES} for one in rounds] for label, rounds in taken.items()},
        "matrix_rounds": matrices,
    }


def share(rows_per_s: float, flop: float, label: str, matrices: Sequence[Matrix]) -> float:
    """Of the matrix rate in the precision that the engine computes in first, 0 to 1; flop: of a review.

    matrices: what was measured just before and just after, in FLOP/s; the best size of each counts, and of these the
    mean: a machine whose speed moves is the same machine for both.
    """
    precision = label.partition("/")[2].partition("+")[0]
    return rows_per_s * flop / statistics.mean(max(one[precision].values()) for one in matrices)


def _alternating(
    engines: Mapping[str, Child], matrix: Child, reviews: Sequence[str], rounds: int
) -> tuple[dict[str, Rounds], list[Matrix]]:
    """Of each engine its rounds, with the matrix rates on both sides of each; and all matrix rates, in their order."""
    for engine in engines.values():
        engine.ask(do="rate", texts=reviews[:WARMING])
    taken: dict[str, Rounds] = {label: [] for label in engines}
    matrices: list[Matrix] = [matrix.ask()]
    for _ in range(rounds):
        for label, engine in engines.items():
            figures = engine.ask(do="rate", texts=reviews)
            matrices.append(matrix.ask())
            taken[label].append({**figures, "matrices": matrices[-2:]})
            print(f"  {label}: { ({key: figures[key] for key in RATES}) }", flush=True)
    return taken, matrices


def _medians(rounds: Rounds) -> dict[str, float]:
    return {key: round(statistics.median(one[key] for one in rounds), 4) for key in FIGURES}


def _tera(matrices: Sequence[Matrix]) -> dict[str, dict[str, float]]:
    """Medians in TFLOP/s, by precision and number of rows."""
    return {
        name: {str(rows): round(statistics.median(one[name][str(rows)] for one in matrices) / 1e12, 3) for rows in ROWS}
        for name in PRECISIONS
    }


def _why(said: Mapping[str, str]) -> str:
    """Without where the checkout lies."""
    return said["unavailable"].replace(str(CHECKOUT), ".")


def _engines(bundle: Bundle) -> Iterator[tuple[str, tuple[str, str]]]:
    """Label, name, and the precision as one asks for it, of the engines that run none of the model's code."""
    for entry in bundle.manifest.engines:
        if not entry.runs_code:
            yield f"{entry.name}/{entry.precision}", (entry.name, entry.precision.partition("+")[0])


def _encoder(bundle: Bundle) -> Encoder:
    (uri,) = classifiers(bundle.manifest.pipeline)
    return Encoder.read(find_checkpoint(bundle.resolve(uri)).weights / "config.json")
