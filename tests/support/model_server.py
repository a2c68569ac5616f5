"""A server process for a small model in plain Python: `python model_server.py MODEL --options '{"deadline_s": 1}'`.

Prints one JSON line per event (listening, ready, closed, error); logs to stderr.  Exits with the error's exit code.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, NoReturn

from starlette.applications import Starlette

from likewise.core.ending import end_in_time
from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import EngineUnavailable, LikewiseError
from likewise.core.items import Item, Request, Row
from likewise.core.results import Failed, Ok, Result
from likewise.core.signature import Signature
from likewise.server import ServedModel, ServerOptions
from likewise.server.app import create_app
from likewise.server.run import run

POLL_S = 0.002
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Model:
    """A model: its signature, the prediction function for one row, and an example request."""

    signature: Signature
    predict: Callable[[Row], object]
    example: bytes


def signature(inputs: list[Json], outputs: list[Json] | None, params: list[Json] | None = None) -> Signature:
    parts = {"inputs": inputs, "outputs": outputs, "params": params}
    return Signature.parse({name: json.dumps(part) for name, part in parts.items() if part is not None})


def column(name: str, kind: str, *, required: bool = True, **more: Any) -> Json:
    return {"name": name, "type": kind, "required": required, **more}


def tensor(*shape: int, dtype: str = "float64") -> Json:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}}


computed: Counter[str] = Counter()


def upper(row: Row) -> dict[str, object]:
    """The text in capitals.

    `gate PATH` creates PATH.begun and waits until PATH exists; `hold PATH` creates PATH and holds the GIL for a minute;
    `leave PATH` leaves processes and shared memory behind, and writes what to PATH; texts starting with `bad` raise.
    """
    text = str(row.get("text"))
    verb, _, path = text.partition(" ")
    if verb == "gate":
        Path(f"{path}.begun").touch()
        while not Path(path).exists():
            time.sleep(POLL_S)
    if verb == "hold":
        Path(path).touch()
        hold()
    if verb == "leave":
        Path(path).write_text(json.dumps(leave()))
    if verb == "bad":
        raise ValueError(f"{text!r} is bad")
    return {"text": text.upper()}


def hold() -> None:
    """Hold the GIL for a minute, as a C extension may."""
    ctypes.PyDLL(None).sleep(60)


kept: list[SharedMemory] = []


def leave() -> Json:
    """Leave behind a child process, a daemon and shared memory; returns their ids and its name."""
    child = os.fork() or _sleep()
    reading, writing = os.pipe()
    if not os.fork():
        os.setsid()
        os.write(writing, str(os.fork() or _sleep()).encode())
        os._exit(0)
    kept.append(SharedMemory(create=True, size=1000))
    return {"processes": [child, int(os.read(reading, 20))], "shared": kept[-1].name}


def _sleep() -> NoReturn:
    time.sleep(600)
    os._exit(0)


def counted(row: Row) -> object:
    """The text in capitals, and how often this process has computed it."""
    text = str(row.get("text"))
    prediction = upper(row)
    computed[text] += 1
    return {**prediction, "times": computed[text]}


def product(row: Row) -> object:
    x, n = row.get("x"), row.get("n")
    assert isinstance(n, int)
    return {"product": None if x is None else float(str(x)) * n, "n": n, "exact": isinstance(x, float)}


def backwards(row: Row) -> object:
    (values,) = row.values
    assert isinstance(values, list)
    return values[::-1]


def echo(row: Row) -> object:
    """Everything that the model received."""
    return {"columns": list(row.columns or ()), "values": list(row.values), "params": dict(row.params or {})}


def sentiment(row: Row) -> object:
    """A verdict as JSON in a text, as pipelines return it."""
    text = str(row.get("text"))
    if text.startswith("bad"):
        raise ValueError(f"{text!r} is bad")
    verdict = {"language": "en", "score": len(text) / 64, "label": "Positive", "id": 2**53 + 1}
    return json.dumps({"answer": verdict, "markup": f"<b>{text}</b>"})


KINDS = ("string", "integer", "long", "float", "double", "boolean", "datetime", "binary")
ANY_OUTPUT = [{"name": "values", "type": "any"}]
MODELS: dict[str, Model] = {
    "upper": Model(signature([column("text", "string")], None), upper, b'{"inputs": ["warm"]}'),
    "text": Model(
        signature([column("text", "string")], [column("text", "string"), column("times", "long")]),
        counted,
        b'{"inputs": ["warm"]}',
    ),
    "numbers": Model(
        signature(
            [column("x", "double"), column("n", "long")],
            [column("product", "double"), column("n", "long"), column("exact", "boolean")],
        ),
        product,
        b'{"inputs": {"x": [1.5], "n": [1]}}',
    ),
    "sentiment": Model(
        signature([column("text", "string")], [column("answer", "string")]), sentiment, b'{"inputs": ["What a movie!"]}'
    ),
    "tensor": Model(signature([tensor(-1, 3)], [tensor(-1, 3)]), backwards, b'{"inputs": [[1.0, 2.0, 3.0]]}'),
    "kinds": Model(
        signature(
            [column("text", "string"), *(column(f"of {kind}", kind, required=False) for kind in KINDS)],
            ANY_OUTPUT,
            [
                {"name": "temperature", "type": "double", "default": 0.5, "shape": None},
                {"name": "stop", "type": "string", "default": ["."], "shape": [-1]},
                {"name": "many", "type": "long", "default": 1, "shape": None},
            ],
        ),
        echo,
        b'{"dataframe_records": [{"text": "warm"}]}',
    ),
    "nested": Model(
        signature(
            [
                column("list", "array", items={"type": "long"}),
                column("object", "object", properties={"a": {"type": "long"}, "b": {"type": "string"}}),
                column("map", "map", values={"type": "double"}, required=False),
            ],
            ANY_OUTPUT,
        ),
        echo,
        b'{"dataframe_records": [{"list": [1], "object": {"a": 1, "b": "b"}, "map": {}}]}',
    ),
}


class Plain:
    """Calls `predict` per row; each run takes `delay` seconds.  Tokens are words of the row; the model is pure."""

    def __init__(self, model: Model, delay: float) -> None:
        self.spec = EngineSpec("plain", "none", True, False, True, 512)
        self._predict = model.predict
        self._delay = delay

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        return [Work(repr(item), tokens(item), item) for item in items]

    def run(self, work: Sequence[Work]) -> list[Result]:
        time.sleep(self._delay)
        return [Ok(self._result(entry.payload)) for entry in work]

    def close(self) -> None:
        announce("closed", "engine")

    def _result(self, item: object) -> object:
        if isinstance(item, Request):
            return [self._predict(row) for row in item.table.split(item.params)]
        assert isinstance(item, Row)
        return self._predict(item)


def tokens(item: Item) -> int:
    return len(str(item.values[0]).split()) or 1 if isinstance(item, Row) else 1


def announce(event: str, value: object) -> None:
    print(json.dumps({event: value}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--options", type=json.loads, default={}, help="fields of ServerOptions")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds per run")
    parser.add_argument("--load", type=float, default=0.0, help="seconds to load the engine")
    parser.add_argument("--hold", action="store_true", help="hold the GIL while the engine is loaded")
    parser.add_argument("--fail", action="store_true", help="fail to load the engine")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    try:
        serve(arguments)
    except LikewiseError as error:
        announce("error", error.as_dict())
        return error.exit_code
    return 0


def serve(arguments: argparse.Namespace) -> None:
    options = {"port": 0, **arguments.options}
    for name in ("token_file", "capture"):
        if name in options:
            options[name] = Path(options[name])
    server_options = ServerOptions(**options)
    end_in_time(server_options.end_s)

    def open_engine() -> Plain:
        time.sleep(arguments.load)
        if arguments.hold:
            hold()
        if arguments.fail:
            raise EngineUnavailable("no such engine", remedy="choose another engine")
        return Plain(MODELS[arguments.model], arguments.delay)

    run(
        create_app(open_engine, described(arguments.model), server_options),
        server_options,
        on_listening=lambda url: announce("listening", url),
        on_ready=lambda url: announce("ready", url),
    )


def model_app(name: str, **options: Any) -> Starlette:
    """The app of one of the models, for a server in the caller's process."""
    return create_app(lambda: Plain(MODELS[name], 0.0), described(name), ServerOptions(**options))


def described(name: str) -> ServedModel:
    model = MODELS[name]
    return ServedModel(
        name=f"models:/{name}/3",
        version="3",
        digest="sha256:abc",
        signature=model.signature,
        example=model.example,
        facts={
            "steps": [{"step": "detect_language"}, {"step": "classify", "model": "models:/reviews/1"}],
            "engines": [{"name": "plain/none", "rows_per_second": 1234.5, "agreement": None, "runs_code": True}],
            "python": "3.11.4",
            "requirements": ["likewise<1"],
        },
    )


if __name__ == "__main__":
    sys.exit(main())
