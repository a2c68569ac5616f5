"""The server's overhead over its engine: for single requests and under load."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from http.client import HTTPConnection

from bench import wrk
from bench.bare import bare
from bench.child import Child
from bench.model import bodies, body, subject, texts
from bench.options import Options
from bench.servers import Server, likewise_serve, running
from bench.serving import FIRST, REVIEWS, WARMING

LONE = 300  # texts per round
LONE_WORDS = range(140, 166)  # of a text of about 200 tokens
WARM = 20  # texts before each measured round


def lone(options: Options) -> dict[str, object]:
    """One request at a time over one connection: median latency over HTTP and of the engine alone, same texts."""
    model = subject()
    count = LONE + WARM
    chosen = [text for text in texts(REVIEWS) if len(text.split()) in LONE_WORDS]
    parts = [chosen[start : start + count] for start in range(0, len(chosen) - count + 1, count)]
    rounds = []
    with running(likewise_serve(model.bundle), FIRST) as server, bare(model.bundle) as engine:
        for part in parts[: options.rounds or 3]:
            rounds.append(_lone_round(server, engine, part))
            print(f"  {rounds[-1]}", flush=True)
    return _with_medians(rounds)


def served(options: Options) -> dict[str, object]:
    """Many connections, distinct reviews: the server's requests per second, and rows per second of the engine alone."""
    wrk.require()
    model, reviews, seconds = subject(), texts(REVIEWS), options.seconds or 20
    path = bodies(reviews)
    rounds = []
    for _ in range(options.rounds or 3):
        with running(likewise_serve(model.bundle), FIRST) as server:
            settle = partial(server.post, FIRST)
            figures = wrk.warm_load(server.url, seconds, options.connections, settle=settle, bodies=path, fresh=WARMING)
        with bare(model.bundle) as engine:
            engine.call(do="stream", texts=reviews[:WARMING], seconds=wrk.WARM_S)
            alone = engine.call(do="stream", texts=reviews[WARMING:], seconds=seconds)
        rows_per_s = round(alone["rows"] / alone["seconds"], 2)
        rounds.append({**figures, "engine_rows_per_s": rows_per_s, "ratio": round(figures["rps"] / rows_per_s, 3)})
        print(f"  {rounds[-1]}", flush=True)
    return _with_medians(rounds)


def _lone_round(server: Server, engine: Child, part: Sequence[str]) -> dict[str, float]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    over_http = _timed(lambda text: _post(connection, text), part)[WARM:]
    connection.close()
    alone = engine.call(do="lone", texts=part)
    http, own = statistics.median(over_http), statistics.median(alone["seconds"][WARM:])
    return {
        "http_ms": round(http * 1e3, 3),
        "engine_ms": round(own * 1e3, 3),
        "tokens": statistics.median(alone["costs"][WARM:]),
        "ratio": round(http / own, 4),
    }


def _timed(do: Callable[[str], None], some: Sequence[str]) -> list[float]:
    seconds = []
    for one in some:
        started_at = time.perf_counter()
        do(one)
        seconds.append(time.perf_counter() - started_at)
    return seconds


def _post(connection: HTTPConnection, text: str) -> None:
    connection.request("POST", "/invocations", body(text), {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise SystemExit(f"the server returned status {response.status}: {content[:300]!r}")


def _with_medians(rounds: list[dict[str, float]]) -> dict[str, object]:
    medians = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    return {**medians, "rounds": rounds}
