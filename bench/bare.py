"""The engine of a bundle with no server before it: `python -m bench.bare BUNDLE [ENGINE PRECISION]`, asked in JSON.

`{"do": "open"}` says which engine it is, or why it cannot run here.
`{"do": "lone", "texts": […]}` takes one text after another.
`{"do": "stream", "texts": […], "seconds": 20}` takes pools of texts as a server's queue holds them, preparing the next
pool while one runs.
`{"do": "rate", "texts": […]}` takes all as a job does: tokenization apart, and then both at once, chunk by chunk.
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
from bench.child import Answer, Child, answer_lines, child
from likewise.batch.scorer import Scorer
from likewise.cli.app import quiet_libraries
from likewise.core.engine import Engine, Work, predict_items
from likewise.core.errors import EngineUnavailable, MissingExtra
from likewise.core.items import Item, Row
from likewise.core.results import Failed, Ok, Result
from likewise.core.windows import windows

POOL = 32  # texts that wait together: as many as there are connections
CHUNK = 256  # texts that are prepared while as many run


@contextmanager
def bare(bundle: Path, *engine: str, environment: Mapping[str, str] | None = None) -> Iterator[Child]:
    """A process that has the bundle's engine loaded when it answers for the first time; `engine`: name, precision."""
    with child("bench.bare", str(bundle), *engine, environment=environment) as process:
        yield process


def lone(engine: Engine, texts: Sequence[str]) -> dict[str, object]:
    """Seconds of prepare and run for each text alone, and what each costs in tokens."""
    seconds = []
    for item in _rows(texts):
        began = time.perf_counter()
        results = predict_items(engine, [item])
        seconds.append(time.perf_counter() - began)
        _check(results)
    return {"seconds": seconds, "costs": [work.cost for work in _prepared(engine, texts)]}


def stream(engine: Engine, texts: Sequence[str], seconds: float) -> dict[str, object]:
    """Rows that were answered, and in how many seconds; stops after `seconds` or at the last text.

    As many windows run at once as the engine has slots.
    """
    rows, began = 0, time.perf_counter()
    with ThreadPoolExecutor(engine.spec.slots) as slots:
        for prepared in _ahead(engine, texts, POOL):
            parts = windows([work.cost for work in prepared], engine.spec.budget)
            for results in slots.map(engine.run, [[prepared[index] for index in part] for part in parts]):
                _check(results)
                rows += len(results)
            if time.perf_counter() - began >= seconds:
                break
    return {"rows": rows, "seconds": time.perf_counter() - began}


def rate(engine: Engine, texts: Sequence[str]) -> dict[str, object]:
    """Rows a second of tokenization, of the engine behind it, and of both overlapping; tokens of each text."""
    began = time.perf_counter()
    prepared = _prepared(engine, texts)
    tokenized = time.perf_counter()
    _check(Scorer(engine).answer(prepared))
    ran = time.perf_counter()
    for part in _ahead(engine, texts, CHUNK):
        _check(Scorer(engine).answer(part))
    both = time.perf_counter()
    return {
        "tokenization_rows_per_s": round(len(texts) / (tokenized - began), 1),
        "rows_per_s": round(len(texts) / (ran - tokenized), 2),
        "with_tokenization_rows_per_s": round(len(texts) / (both - ran), 2),
        "tokens": [work.cost for work in prepared],
    }


def _ahead(engine: Engine, texts: Sequence[str], size: int) -> Iterator[list[Work]]:
    """The texts in pieces, each prepared in a thread while the one before it is in use."""
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


def _load() -> Answer:
    quiet_libraries()  # what `likewise serve` sets for its own process
    name, precision = sys.argv[2:4] or (None, None)
    try:
        engine = likewise.open_bundle(sys.argv[1]).engine(name, precision=precision)
    except (EngineUnavailable, MissingExtra) as error:
        why = error.cause
        return lambda _: {"unavailable": why}

    def answer(asked: Mapping[str, Any]) -> object:
        match asked["do"]:
            case "open":
                return {"engine": engine.spec.label}
            case "lone":
                return lone(engine, asked["texts"])
            case "stream":
                return stream(engine, asked["texts"], asked["seconds"])
            case _:
                return rate(engine, asked["texts"])

    return answer


if __name__ == "__main__":
    answer_lines(_load)
