"""A bundle's engine without a server: `python -m bench.bare BUNDLE [ENGINE PRECISION]`, called in JSON lines.

`{"do": "open"}` returns the engine's label, or why it cannot run on this machine.
`{"do": "lone", "texts": […]}` scores one text at a time.
`{"do": "stream", "texts": […], "seconds": 20}` scores pools of texts like those in a server's queue, and prepares the
next pool while one runs.
`{"do": "rate", "texts": […]}` scores all texts like a job: with tokenization first, and then concurrently in chunks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import likewise
from bench.child import Child, Handler, child, serve_lines
from likewise.batch.scorer import Scorer
from likewise.cli.app import quiet_libraries
from likewise.core.engine import Engine, Work, predict_items
from likewise.core.errors import EngineUnavailable, MissingExtra
from likewise.core.items import Item, Row
from likewise.core.results import Failed, Ok, Result
from likewise.core.windows import windows

POOL = 32  # texts that wait together, as many as connections
CHUNK = 256  # texts that are prepared while the same number runs


@contextmanager
def bare(bundle: Path, *engine: str, environment: Mapping[str, str] | None = None) -> Iterator[Child]:
    """A child process with the bundle's engine, loaded by its first response; `engine`: name, precision."""
    with child("bench.bare", str(bundle), *engine, environment=environment) as process:
        yield process


def lone(engine: Engine, texts: Sequence[str]) -> dict[str, object]:
    """Seconds of prepare and run for each single text, and the cost of each in tokens."""
    seconds = []
    for item in _rows(texts):
        started_at = time.perf_counter()
        results = predict_items(engine, [item])
        seconds.append(time.perf_counter() - started_at)
        _check(results)
    return {"seconds": seconds, "costs": [work.cost for work in _prepared(engine, texts)]}


def stream(engine: Engine, texts: Sequence[str], seconds: float) -> dict[str, object]:
    """Number of scored rows and elapsed seconds; stops after `seconds` or at the last text.

    As many windows run concurrently as the engine has slots.
    """
    rows, started_at = 0, time.perf_counter()
    with ThreadPoolExecutor(engine.spec.slots) as slots:
        for prepared in _ahead(engine, texts, POOL):
            parts = windows([work.cost for work in prepared], engine.spec.budget)
            for results in slots.map(engine.run, [[prepared[index] for index in part] for part in parts]):
                _check(results)
                rows += len(results)
            if time.perf_counter() - started_at >= seconds:
                break
    return {"rows": rows, "seconds": time.perf_counter() - started_at}


def rate(engine: Engine, texts: Sequence[str]) -> dict[str, object]:
    """Rows per second of tokenization, of the engine, and of both concurrently; number of tokens of each text."""
    started_at = time.perf_counter()
    prepared = _prepared(engine, texts)
    tokenized = time.perf_counter()
    _check(Scorer(engine).score(prepared))
    ran = time.perf_counter()
    for part in _ahead(engine, texts, CHUNK):
        _check(Scorer(engine).score(part))
    both = time.perf_counter()
    return {
        "tokenization_rows_per_s": round(len(texts) / (tokenized - started_at), 1),
        "rows_per_s": round(len(texts) / (ran - tokenized), 2),
        "with_tokenization_rows_per_s": round(len(texts) / (both - ran), 2),
        "tokens": [work.cost for work in prepared],
    }


def _ahead(engine: Engine, texts: Sequence[str], size: int) -> Iterator[list[Work]]:
    """Prepared chunks of the texts; a thread prepares the next chunk while one is in use."""
    with ThreadPoolExecutor(1) as tokenizer:
        coming: Future[list[Work]] | None = None
        for start in range(0, len(texts), size):
            following = tokenizer.submit(_prepared, engine, texts[start : start + size])
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()


def _prepared(engine: Engine, texts: Sequence[str]) -> list[Work]:
    works = engine.prepare(_rows(texts))
    _check([work for work in works if isinstance(work, Failed)])
    return [work for work in works if isinstance(work, Work)]


def _rows(texts: Sequence[str]) -> list[Item]:
    return [Row(("text",), (text,)) for text in texts]


def _check(results: Sequence[Result]) -> None:
    if not all(isinstance(result, Ok) for result in results):
        raise SystemExit(f"the bare engine failed: {results}")


def _load() -> Handler:
    quiet_libraries()  # as `likewise serve` does
    name, precision = sys.argv[2:4] or (None, None)
    try:
        engine = likewise.open_bundle(sys.argv[1]).engine(name, precision=precision)
    except (EngineUnavailable, MissingExtra) as error:
        cause = error.cause
        return lambda _: {"unavailable": cause}

    def handle(request: Mapping[str, Any]) -> object:
        match request["do"]:
            case "open":
                return {"engine": engine.spec.label}
            case "lone":
                return lone(engine, request["texts"])
            case "stream":
                return stream(engine, request["texts"], request["seconds"])
            case _:
                return rate(engine, request["texts"])

    return handle


if __name__ == "__main__":
    serve_lines(_load)
