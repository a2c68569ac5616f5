"""A server process around a small engine, for the process tests: `python upper_server.py --port 0 --delay 0.02`.

Prints one JSON line an event; ends with an error's exit code.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
import time
from collections.abc import Sequence

from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import EngineUnavailable, LikewiseError
from likewise.core.items import Item, Row
from likewise.core.results import Failed, Ok, Result
from likewise.core.signature import Signature
from likewise.server import ServedModel, ServerOptions, create_app, run

TEXT = Signature.parse({"inputs": json.dumps([{"type": "string", "name": "text", "required": True}])})


class Upper:
    """Answers `{"text": TEXT}` after `delay` seconds a run; never ends a run with the text `hang`."""

    def __init__(self, delay: float) -> None:
        self.spec = EngineSpec("upper", "none", True, False, True, 64, "sha256:e")
        self._delay = delay

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        return [Work(repr(item), 1, item) for item in items]

    def run(self, work: Sequence[Work]) -> list[Result]:
        time.sleep(self._delay)
        items = [one.payload for one in work]
        if any(isinstance(item, Row) and item.get("text") == "hang" for item in items):
            say("hanging", len(items))
            threading.Event().wait()
        return [Ok({"text": str(item.get("text")).upper()}) for item in items if isinstance(item, Row)]

    def close(self) -> None:
        say("closed", "engine")


def say(event: str, value: object) -> None:
    print(json.dumps({event: value}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--load", type=float, default=0.0)
    parser.add_argument("--fail", action="store_true")
    parser.add_argument("--drain-timeout", type=int, default=20)
    parser.add_argument("--header-timeout", type=float, default=10.0)
    parser.add_argument("--read-timeout", type=float, default=30.0)
    parser.add_argument("--keep-alive", type=int, default=65)
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)

    def open_engine() -> Upper:
        time.sleep(arguments.load)
        if arguments.fail:
            raise EngineUnavailable("no such engine", remedy="name another")
        return Upper(arguments.delay)

    options = ServerOptions(
        host=arguments.host,
        port=arguments.port,
        drain_timeout_s=arguments.drain_timeout,
        header_timeout_s=arguments.header_timeout,
        read_timeout_s=arguments.read_timeout,
        keep_alive_s=arguments.keep_alive,
    )
    model = ServedModel(name="upper", digest="sha256:abc", signature=TEXT, example=b'{"inputs": ["warm"]}')
    try:
        run(
            create_app(open_engine, model, options),
            options,
            on_listening=lambda url: say("listening", url),
            on_ready=lambda url: say("ready", url),
        )
    except LikewiseError as error:
        say("error", error.as_dict())
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
