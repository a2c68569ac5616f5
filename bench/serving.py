"""Requests per second and latency of `likewise serve` and `mlflow models serve`, alternating, medians of the rounds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from bench import wrk
from bench.model import FOLDER, bodies, body, subject, texts, upper
from bench.options import Options
from bench.servers import Server, likewise_serve, mlflow_serve, running, started

FIRST = body("the first text, which no measurement sends")
REVIEWS = 20_000  # more than a run needs, so that no review is repeated
WARMING = 4_000  # at most this many of them are used in the warm-up
NUMBERED = 1_000_000  # first number of the numbered texts in a measurement


def serving(options: Options) -> dict[str, object]:
    """The demo's pipeline on distinct reviews."""
    model = subject()
    compared = {"mlflow models serve": mlflow_serve(model.uri), "likewise serve": likewise_serve(model.bundle)}
    return _compare(compared, options, reviews=bodies(texts(REVIEWS)), fresh=WARMING)


def trivial(options: Options) -> dict[str, object]:
    """A trivial model on distinct texts: the overhead of the server, and of worker processes."""
    model = upper()
    compared = {
        "mlflow models serve": mlflow_serve(model.uri),
        "likewise serve --in-process": likewise_serve(model.bundle, "--trust", "--in-process"),
        "likewise serve": likewise_serve(model.bundle, "--trust"),
    }
    return _compare(compared, options, fresh=NUMBERED)


def telemetry(options: Options) -> dict[str, object]:
    """The trivial model without and with traces (at most 20 per second, the default; of all requests) and capture.

    With `options.before`, the first is the server of that checkout. `ratios` are to the first.
    """
    plain = likewise_serve(upper().bundle, "--trust")
    with started([sys.executable, "-m", "bench.collector", "PORT"]) as collector:
        on = ["env", f"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{collector.port}", *plain]
        compared = {
            "off": plain,
            "on": on,
            "every request": ["env", "OTEL_TRACES_SAMPLER=parentbased_always_on", *on],
            "a tenth captured": [*plain, "--capture", str(FOLDER / "captures"), "--capture-rate", "0.1"],
        }
        if options.before:
            compared = {"before": ["env", f"PYTHONPATH={options.before.resolve() / 'src'}", *plain], **compared}
        result = _compare(compared, options, fresh=NUMBERED)
    taken: Mapping[str, Sequence[wrk.Figures]] = result["rounds"]  # type: ignore[assignment]
    rates = {name: one["rps"] for name, one in wrk.medians(taken).items()}
    return {**result, "ratios": {name: round(rate / next(iter(rates.values())), 3) for name, rate in rates.items()}}


def cached(options: Options) -> dict[str, object]:
    """The demo's pipeline on a hundred repeated reviews, each scored once before the clock starts."""
    ours, some = likewise_serve(subject().bundle), texts(100)

    def fill(server: Server) -> None:
        for text in some:
            server.post(body(text))

    return _compare({"likewise serve": ours}, options, reviews=bodies(some), prepare=fill)


def _compare(
    commands: Mapping[str, Sequence[str]],
    options: Options,
    *,
    reviews: Path | None = None,
    fresh: int = 0,
    prepare: Callable[[Server], None] | None = None,
) -> dict[str, object]:
    wrk.require()
    taken: dict[str, list[wrk.Figures]] = {name: [] for name in commands}
    for _ in range(options.rounds or 3):
        for name, argv in commands.items():
            with running(argv, FIRST) as server:
                if prepare is not None:
                    prepare(server)
                seconds = options.seconds or 20
                settle = partial(server.post, FIRST)
                figures = wrk.warm_load(
                    server.url, seconds, options.connections, settle=settle, bodies=reviews, fresh=fresh
                )
            print(f"  {name}: {figures}", flush=True)
            taken[name].append(figures)
    result: dict[str, object] = {**wrk.medians(taken), "rounds": taken}
    rates = [one["rps"] for one in wrk.medians(taken).values()]
    return {**result, "ratio": round(rates[-1] / rates[0], 2)} if len(rates) > 1 else result
