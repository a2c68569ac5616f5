"""Models that users bring: `likewise serve` and `mlflow models serve`, alternating, idle and on a busy machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench import wrk
from bench.flavour_models import rows, token_ids
from bench.model import FOLDER, Subject, cached, run_json, subject, texts
from bench.options import Options
from bench.servers import likewise_serve, mlflow_serve, running
from likewise.bundles.open import open_bundle

CONNECTIONS = 16
BUSY = 4  # processes that compute without end, on the busy machine
SECONDS = 24  # rows that are merged are answered together: a few seconds would count the first and last windows wrongly
TABULAR = 40_000  # distinct rows
REVIEWS = 4_000
WARMING = 0.2  # fraction of the requests that only the warm-up sends
PEER, OURS = "mlflow models serve", "likewise serve"


@dataclass(frozen=True)
class Flavour:
    """A model, its requests, whether running it needs trust, and options of `likewise bundle`."""

    log: Callable[[], str]
    requests: Callable[[], list[object]]
    trust: bool
    bundling: tuple[str, ...] = ("--trust",)


def flavours(options: Options) -> dict[str, object]:
    """Requests per second of each model, one row per request and all rows different, idle and busy."""
    wrk.require()
    result: dict[str, object] = {}
    for name in options.model or FLAVOURS:
        flavour = FLAVOURS[name]
        model = cached(f"{name}.json", f"{name}-bundle", flavour.log, *flavour.bundling)
        bodies = FOLDER / f"{name}-bodies.txt"
        if not bodies.exists():
            bodies.write_text("".join(json.dumps(each) + "\n" for each in flavour.requests()))
        commands = {PEER: mlflow_serve(model.uri), OURS: _ours(model, flavour)}
        loads: dict[str, Callable[[], AbstractContextManager[None]]] = {
            "idle": nullcontext,
            f"{BUSY} busy loops": _busy,
        }
        result[name] = {
            load: _alternate(name, load, commands, bodies, around, options) for load, around in loads.items()
        }
    return result


def _ours(model: Subject, flavour: Flavour) -> Sequence[str]:
    return likewise_serve(model.bundle, *(["--trust"] if flavour.trust else []))


def _alternate(
    name: str,
    load: str,
    commands: dict[str, Sequence[str]],
    bodies: Path,
    around: Callable[[], AbstractContextManager[None]],
    options: Options,
) -> dict[str, object]:
    lines = bodies.read_bytes().splitlines()
    taken: dict[str, list[wrk.Figures]] = {each: [] for each in commands}
    first: dict[str, list[float]] = {each: [] for each in commands}
    for _ in range(options.rounds or 3):
        for server_name, argv in commands.items():
            with running(argv, lines[-1]) as server, around():
                figures = wrk.warm_load(
                    server.url,
                    options.seconds or SECONDS,
                    CONNECTIONS,
                    settle=lambda server=server: server.post(lines[-1]),  # type: ignore[misc]
                    bodies=bodies,
                    fresh=int(WARMING * len(lines)),
                )
            print(f"  {name}, {load}, {server_name}: {figures}, {server.first_s:.1f} s to the first", flush=True)
            taken[server_name].append(figures)
            first[server_name].append(round(server.first_s, 1))
    medians = wrk.medians(taken)
    ratio = round(medians[OURS]["rps"] / medians[PEER]["rps"], 2)
    return {**medians, "ratio": ratio, "seconds_to_first_response": first, "rounds": taken}


@contextmanager
def _busy() -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY)]
    try:
        yield
    finally:
        for each in loops:
            each.kill()
            each.wait()


# --- models ----------------------------------------------------------------------------------------------------------


@cache
def classifier() -> str:
    """The URI of the demo's fine-tuned classifier, a transformers model."""
    return open_bundle(subject().bundle).manifest.references[0].uri


def _log(name: str, *classifier: Callable[[], str]) -> Callable[[], str]:
    return lambda: run_json("bench.flavour_models", name, *(uri() for uri in classifier))["uri"]


def _tabular() -> list[object]:
    frame = rows(TABULAR)
    columns = list(frame.columns)
    return [{"dataframe_split": {"columns": columns, "data": [row]}} for row in frame.to_numpy().tolist()]


def reviews() -> list[str]:
    """Distinct reviews of 100 to 200 words."""
    return [text for text in texts(4 * REVIEWS) if 100 <= len(text.split()) <= 200][:REVIEWS]


def _inputs() -> list[object]:
    return [{"inputs": [text]} for text in reviews()]


def _frames() -> list[object]:
    return [{"dataframe_split": {"columns": ["text"], "data": [[text]]}} for text in reviews()]


FLAVOURS = {
    "sklearn": Flavour(_log("sklearn"), _tabular, trust=False),
    "xgboost": Flavour(_log("xgboost"), _tabular, trust=False),
    "onnx": Flavour(
        _log("onnx", classifier),
        lambda: [{"inputs": each} for each in token_ids(classifier(), reviews())],
        trust=False,
    ),
    "onnx-bf16": Flavour(
        _log("onnx", classifier),
        lambda: [{"inputs": each} for each in token_ids(classifier(), reviews())],
        trust=False,
        bundling=("--trust", "--tolerance", "0.03"),
    ),
    "transformers": Flavour(classifier, _inputs, trust=False, bundling=()),
    "sentences": Flavour(_log("sentences"), _inputs, trust=False, bundling=()),
    "book": Flavour(_log("book", classifier), _frames, trust=True),
    "book-accelerated": Flavour(_log("book", classifier), _frames, trust=True, bundling=("--trust", "--accelerate")),
}
