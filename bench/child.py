"""A process of its own that is asked in JSON, one line a question and one line an answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Answer = Callable[[Mapping[str, Any]], object]


class Child:
    """The process, as its asker sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **question: object) -> dict[str, Any]:
        """Its answer; SystemExit where it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"{self._process.args!r} ended with {self._process.wait()}")
        return dict(json.loads(line))


@contextmanager
def child(module: str, *argv: str, environment: Mapping[str, str] | None = None) -> Iterator[Child]:
    """`python -m module …`, which calls `answer_lines`; environment: variables beside ours."""
    words = [sys.executable, "-m", module, *argv]
    told = {**os.environ, **(environment or {})}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=told) as process:
        yield Child(process)  # the end of its input ends it


def answer_lines(load: Callable[[], Answer]) -> None:
    """In the child: load, then answer line by line until the input ends. What libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answer = load()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=out, flush=True)
