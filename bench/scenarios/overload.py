"""Three times the server's capacity: it must keep its throughput and reject the rest immediately."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.engines import requests, sleeping
from bench.generator import Outcome, go, opened
from bench.options import Options
from bench.scenarios.peak import peak
from bench.servers import Server
from bench.verdict import Check, Verdict, good, lag_ms, quantile, statuses, worst

TIMES = 3.0
SECONDS = 60.0
PEAK_S = 5.0
DEADLINE_S = 2.0
CACHE_BYTES = 2_000_000  # full soon, so that further growth of memory has other causes
SHED = (429, 503)
EXPECTED = (200, *SHED, 504)


def overload(options: Options) -> Verdict:
    """Goodput compared with the peak, latency of rejections, the latest accepted response, and memory."""
    seconds, texts = options.seconds or SECONDS, requests()
    with sleeping(options.rows_per_s, deadline_s=DEADLINE_S, cache_bytes=CACHE_BYTES) as server:
        most = peak(server, texts, min(PEAK_S, seconds))
        with _memory(server, seconds) as megabytes:
            outcomes = go(opened(server.port, texts, TIMES * most, seconds))
        megabytes.append(server.rss_mb())
    return _verdict(most, seconds, outcomes, megabytes)


def _verdict(most: float, seconds: float, outcomes: Sequence[Outcome], megabytes: Sequence[float]) -> Verdict:
    accepted = good(outcomes)
    in_time = [one for one in accepted if one.wait <= DEADLINE_S]
    shed = [one for one in outcomes if one.status in SHED]
    goodput = len(in_time) / seconds / most
    refusal_ms = quantile((one.wait for one in shed), 0.99) * 1e3
    latest = worst(one.wait for one in accepted)
    start, *_, end = megabytes
    figures = {
        "peak_per_s": round(most, 1),
        "offered_per_s": round(len(outcomes) / seconds, 1),
        "goodput_per_s": round(len(in_time) / seconds, 1),
        "statuses": statuses(outcomes),
        "refusal_p50_ms": round(quantile((one.wait for one in shed), 0.5) * 1e3, 2),
        "accepted_p99_s": round(quantile((one.wait for one in accepted), 0.99), 3),
        "rss_mb": [round(one, 1) for one in megabytes],
        "generator_lag_p99_ms": lag_ms(outcomes),
    }
    return Verdict(
        "overload",
        figures,
        [
            Check("goodput / peak", goodput, "at least", 0.95),
            Check("p99 of rejections, ms", refusal_ms, "at most", 25.0),
            Check("latest accepted response / deadline", latest / DEADLINE_S, "at most", 1.0),
            Check("rejections without Retry-After", sum(one.retry_after is None for one in shed), "at most", 0),
            Check("other statuses, or none", sum(one.status not in EXPECTED for one in outcomes), "at most", 0),
            Check("memory at the end / at the start", end / start, "at most", 1.5),
        ],
    )


@contextmanager
def _memory(server: Server, seconds: float) -> Iterator[list[float]]:
    """Resident megabytes at the start and in the middle of the block."""
    megabytes = [server.rss_mb()]
    middle = threading.Timer(seconds / 2, lambda: megabytes.append(server.rss_mb()))
    middle.start()
    try:
        yield megabytes
    finally:
        middle.cancel()
        middle.join()
