"""An engine of known speed in the real server: `python -m bench.engines --port 5000 --tokens-per-s 10000`.

A token is a word. A run sleeps for the time that its tokens take, and leaves the cores to the server and its clients.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import count, islice
from typing import Any

import orjson

from bench.generator import Outcome, Request
from bench.model import FOLDER
from bench.servers import Server, running
from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import LikewiseError
from likewise.core.items import Item, Row
from likewise.core.results import Failed, Ok, Result
from likewise.core.signature import Signature
from likewise.server import ServedModel, ServerOptions
from likewise.server.app import create_app
from likewise.server.run import run

WORDS = 20  # default number of words of a text
POISON = "poison"  # the kind of text for which the model raises
COUNTS = FOLDER / "computed.json"
BUDGET_S = 0.05  # compute time of one window
SIGNATURE = Signature.parse({"inputs": json.dumps([{"type": "string", "name": "text", "required": True}])})


class Sleeping:
    """Returns `{"text": TEXT}` after sleeping, without using CPU. tokens_per_s: 0 for as fast as possible."""

    def __init__(self, tokens_per_s: float) -> None:
        budget = round(tokens_per_s * BUDGET_S) or 4096
        self.spec = EngineSpec(
            name="sleeping",
            precision="none",
            row_wise=True,
            thread_safe=False,
            pure=True,
            budget=budget,
        )
        self.computed: Counter[str] = Counter()
        self._tokens_per_s = tokens_per_s

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        texts = [str(item.get("text")) for item in items if isinstance(item, Row)]
        return [Work(text, len(text.split()), text) for text in texts]

    def run(self, work: Sequence[Work]) -> list[Result]:
        results: list[Result] = []
        tokens = 0
        for one in work:
            text = str(one.payload)
            kind = text.partition(" ")[0]
            tokens += one.cost
            if kind == POISON:
                self._sleep(tokens)
                raise ValueError("the model does not like this text")
            self.computed[kind] += 1
            results.append(Ok({"text": text.upper()}))
        self._sleep(tokens)
        return results

    def close(self) -> None:
        COUNTS.write_text(json.dumps(self.computed))

    def _sleep(self, tokens: int) -> None:
        if self._tokens_per_s:
            time.sleep(tokens / self._tokens_per_s)


def requests(kind: str = "short", *, words: int = WORDS, rows: int = 1) -> Iterator[Request]:
    """An endless sequence of requests; each text starts with its kind and a unique id, `KIND NUMBER.ROW`."""
    filler = " ".join(["word"] * (words - 2))
    for number in count():
        texts = [f"{kind} {number}.{row} {filler}".rstrip() for row in range(rows)]
        body = {"dataframe_split": {"columns": ["text"], "data": [[text] for text in texts]}}
        yield Request(number, kind, texts, orjson.dumps(body))


def is_own(outcome: Outcome) -> bool:
    """Whether the response belongs to this request."""
    wanted = {"predictions": [{"text": text.upper()} for text in outcome.request.texts]}
    return outcome.status == 200 and bool(orjson.loads(outcome.body) == wanted)


@contextmanager
def sleeping(rows_per_s: float, *, words: float = WORDS, **options: object) -> Iterator[Server]:
    """Run a server whose engine scores `rows_per_s` rows of `words` words; options are fields of `ServerOptions`."""
    COUNTS.unlink(missing_ok=True)
    settings = json.dumps({"access_log": False, **options})
    speed = str(rows_per_s * words)
    argv = [sys.executable, "-m", "bench.engines", "--port", "PORT", "--tokens-per-s", speed, "--options", settings]
    first = next(islice(requests("first"), 1))
    with running(argv, first.body) as server:
        yield server


def computed() -> dict[str, int]:
    """Number of items that the engine has run, by kind; available after its server has exited."""
    return dict(json.loads(COUNTS.read_text()))


def _options(port: int, settings: dict[str, Any]) -> ServerOptions:
    known = {field.name for field in fields(ServerOptions)}
    if unknown := set(settings) - known:
        raise SystemExit(
            f"unknown server options: {', '.join(sorted(unknown))}; valid options: {', '.join(sorted(known))}"
        )
    return replace(ServerOptions(port=port), **settings)


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tokens-per-s", type=float, required=True)
    parser.add_argument("--options", type=json.loads, default={})
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    options = _options(arguments.port, arguments.options)
    model = ServedModel(name="sleeping", digest="sha256:0", signature=SIGNATURE, example=b'{"inputs": ["warm up"]}')
    try:
        run(create_app(lambda: Sleeping(arguments.tokens_per_s), model, options), options)
    except LikewiseError as error:
        print(error.cause, error.remedy, sep="\n", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
