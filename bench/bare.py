"""The engine of a bundle with no server before it: `python -m bench.bare BUNDLE`, asked in JSON lines.

`{"do": "lone", "texts": […]}` takes one text after another; `{"do": "stream", "texts": […], "seconds": 20}` takes pools
of texts as a server's queue holds them, preparing the next pool while one runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import likewise
from likewise.cli.app import quiet_libraries
from likewise.core.engine import Engine, Work, answers
from likewise.core.items import Item, Row
from likewise.core.results import Ok, Result
from likewise.core.windows import windows

POOL = 32  # texts that wait together: as many as there are connections


class Bare:
    """The process, as its asker sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, do: str, texts: Sequence[str], **more: object) -> dict[str, Any]:
        """Its answer; SystemExit where it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, "texts": list(texts), **more}) + "\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"the bare engine ended with {self._process.wait()}")
        return dict(json.loads(line))


@contextmanager
def bare(bundle: Path) -> Iterator[Bare]:
    """A process that has the bundle's engine loaded when it answers for the first time."""
    argv = [sys.executable, "-m", "bench.bare", str(bundle)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Bare(process)  # the end of its input ends it


def lone(engine: Engine, texts: Sequence[str]) -> dict[str, object]:
    """Seconds of prepare and run for each text alone, and what each costs in tokens."""
    seconds = []
    for item in _rows(texts):
        began = time.perf_counter()
        results = answers(engine, [item])
        seconds.append(time.perf_counter() - began)
        _check(results)
    prepared = engine.prepare(_rows(texts))
    return {"seconds": seconds, "costs": [work.cost for work in prepared if isinstance(work, Work)]}


def stream(engine: Engine, texts: Sequence[str], seconds: float) -> dict[str, object]:
    """Rows that were answered, and in how many seconds; stops after `seconds` or at the last text."""
    pools = [texts[start : start + POOL] for start in range(0, len(texts), POOL)]
    rows = 0
    with ThreadPoolExecutor(1) as tokenizer:
        began = time.perf_counter()
        coming = tokenizer.submit(engine.prepare, _rows(pools[0]))
        for following in [*pools[1:], []]:
            prepared = [one for one in coming.result() if isinstance(one, Work)]
            coming = tokenizer.submit(engine.prepare, _rows(following))
            for window in windows([work.cost for work in prepared], engine.spec.budget):
                _check(engine.run([prepared[index] for index in window]))
                rows += len(window)
            if time.perf_counter() - began >= seconds:
                break
        return {"rows": rows, "seconds": time.perf_counter() - began}


def _rows(texts: Sequence[str]) -> list[Item]:
    return [Row(("text",), (text,)) for text in texts]


def _check(results: Sequence[Result]) -> None:
    if not all(isinstance(result, Ok) for result in results):
        raise SystemExit(f"the bare engine failed: {results}")


def main() -> None:
    """Answer line by line until the input ends."""
    quiet_libraries()  # what `likewise serve` sets for its own process
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints stays out of the answers
    engine = likewise.open_bundle(sys.argv[1]).engine()
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "lone":
            answer = lone(engine, asked["texts"])
        else:
            answer = stream(engine, asked["texts"], asked["seconds"])
        print(json.dumps(answer), file=out, flush=True)
    engine.close()


if __name__ == "__main__":
    main()
