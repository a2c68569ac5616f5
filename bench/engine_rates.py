"""Each engine of the bundle alone, compared with the machine's matrix rate in the same run."""

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
from likewise.engine.kinds import runs_code
from likewise.engine.text.checkpoint import find_checkpoint
from likewise.pipeline.pipeline import classifiers

REVIEWS = 512
WARMING = 128  # reviews before the first round
RATES = ("rows_per_s", "with_tokenization_rows_per_s", "tokenization_rows_per_s")
FIGURES = (*RATES, "share_of_matrix_rate")

Matrix = Mapping[str, Mapping[str, float]]
Rounds = list[dict[str, Any]]


def engines(options: Options) -> dict[str, object]:
    """Rows per second by engine, the matrix rate measured in between, and the fraction of it that each reaches.

    Every engine is loaded once in its own process; each round runs them in turn, with the matrix rate after each.
    """
    bundle = likewise.open_bundle(subject().bundle)
    reviews, encoder = texts(options.reviews or REVIEWS), _encoder(bundle)
    isa = {"ONEDNN_MAX_CPU_ISA": options.isa} if options.isa else {}
    with ExitStack() as stack:
        processes = {
            label: stack.enter_context(bare(bundle.path, *how, environment=isa)) for label, how in _engines(bundle)
        }
        opened = {label: engine.call(do="open") for label, engine in processes.items()}
        usable = {label: processes[label] for label, response in opened.items() if "engine" in response}
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
        "unavailable": {label: _cause(response) for label, response in opened.items() if "unavailable" in response},
        "rounds": {label: [{key: one[key] for key in FIGURES} for one in rounds] for label, rounds in taken.items()},
        "matrix_rounds": matrices,
    }


def share(rows_per_s: float, flop: float, label: str, matrices: Sequence[Matrix]) -> float:
    """Fraction, 0 to 1, of the matrix rate in the engine's primary precision; flop: operations per review.

    matrices: rates measured just before and just after, in FLOP/s. The best size of each is used, and their mean, to
    compensate for variations of the machine's speed.
    """
    precision = label.partition("/")[2].partition("+")[0]
    return rows_per_s * flop / statistics.mean(max(one[precision].values()) for one in matrices)


def _alternating(
    engines: Mapping[str, Child], matrix: Child, reviews: Sequence[str], rounds: int
) -> tuple[dict[str, Rounds], list[Matrix]]:
    """The rounds of each engine with the matrix rates before and after; and all matrix rates in order."""
    for engine in engines.values():
        engine.call(do="rate", texts=reviews[:WARMING])
    taken: dict[str, Rounds] = {label: [] for label in engines}
    matrices: list[Matrix] = [matrix.call()]
    for _ in range(rounds):
        for label, engine in engines.items():
            figures = engine.call(do="rate", texts=reviews)
            matrices.append(matrix.call())
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


def _cause(response: Mapping[str, str]) -> str:
    """The cause, without the path of the checkout."""
    return response["unavailable"].replace(str(CHECKOUT), ".")


def _engines(bundle: Bundle) -> Iterator[tuple[str, tuple[str, str]]]:
    """Label, name and requested precision of the engines that run none of the model's code."""
    for entry in bundle.manifest.engines:
        if not runs_code(entry):
            yield f"{entry.name}/{entry.precision}", (entry.name, entry.precision.partition("+")[0])


def _encoder(bundle: Bundle) -> Encoder:
    (uri,) = classifiers(bundle.manifest.pipeline)
    return Encoder.read(find_checkpoint(bundle.resolve(uri)).weights / "config.json")
