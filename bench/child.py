"""A child process that is called in JSON, with one line per request and one line per response."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Handler = Callable[[Mapping[str, Any]], object]


class Child:
    """The child process as seen by its parent."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def call(self, **request: object) -> dict[str, Any]:
        """Send a request and return the response; raises SystemExit if the process has exited."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"{self._process.args!r} exited with code {self._process.wait()}")
        return dict(json.loads(line))


@contextmanager
def child(module: str, *argv: str, environment: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Run `python -m module …`, which must call `serve_lines`; environment: additional variables."""
    words = [sys.executable, "-m", module, *argv]
    variables = {**os.environ, **(environment or {})}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables) as process:
        yield Child(process)  # closing its input stops it


def serve_lines(load: Callable[[], Handler]) -> None:
    """In the child: load, then handle lines until the input ends. Output of libraries is redirected to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    handle = load()
    for line in sys.stdin:
        print(json.dumps(handle(json.loads(line))), file=out, flush=True)
