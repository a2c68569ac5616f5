"""Prometheus metrics, each with the label `bundle`."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from likewise.dataplane import Observer, RunStats

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384)
RATIO = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1.0)
SHED, ENDED = ("deadline", "queue", "in_flight"), ("timeout", "death", "overdue")  # reasons
PROCESS = re.compile(r"process \d+")  # in a cause; each id would be a new time series
GAUGES = {
    "ready": "1 if the model is loaded and warm, and requests are accepted; else 0.",
    "queue_items": "Items waiting for the engine.",
    "queue_tokens": "Tokens waiting for the engine.",
    "workers": "Worker processes that have loaded the model.",
    "worker_bytes": "Private memory of the worker processes.",
    "worker_restarts": "Worker processes replaced since the start.",
    "compiled_calls": "Calls of the model's compiled modules.",
    "original_calls": "Calls of compiled modules that were computed in torch, because the compiled graph lacks them.",
    "in_flight_bytes": "Estimated memory of the requests in flight.",
}

M = TypeVar("M", Counter, Gauge, Histogram)


class Metrics(Observer):
    """The service's metrics, in a dedicated registry so that several services can run in one process."""

    def __init__(self, bundle: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._bundle = bundle
        requests = self._metric(Counter, "requests", "Requests served.", "route", "status")
        self._requests: Callable[[str, int], Counter] = cache(partial(requests.labels, bundle))
        text = "Time from the request's headers to the end of the response."
        latency = self._metric(Histogram, "request_seconds", text, "route", buckets=SECONDS)
        self._latency: Callable[[str], Histogram] = cache(partial(latency.labels, bundle))
        self._batch_items = self._unlabelled(Histogram, "batch_items", "Items per engine run.", buckets=ITEMS)
        self._batch_tokens = self._unlabelled(Histogram, "batch_tokens", "Tokens per engine run.", buckets=TOKENS)
        text = "Ratio of tokens to padded tokens per engine run."
        self._padding = self._unlabelled(Histogram, "padding_efficiency", text, buckets=RATIO)
        self._queue = self._unlabelled(
            Histogram, "queue_seconds", "Waiting time of an item for the engine.", buckets=SECONDS
        )
        self._compute = self._unlabelled(Histogram, "compute_seconds", "Duration of an engine run.", buckets=SECONDS)
        self._hits = self._unlabelled(Counter, "cache_hits", "Items served from the cache.")
        self._misses = self._unlabelled(Counter, "cache_misses", "Items of a pure model that were not cached.")
        self._shared = self._unlabelled(Counter, "shared_items", "Items that joined an equal item in flight.")
        self._dropped = self._unlabelled(Counter, "dropped_items", "Items dropped because their clients were gone.")
        self._poison = self._unlabelled(Counter, "poison_items", "Items on which the model raised an exception.")
        text = "Engine runs without results: ended at the run time-out, ended by a death, or not to be ended."
        self._ended = self._metric(Counter, "ended_runs", text, "reason")
        text = (
            "Time of the last failure of a row or a run, in seconds since 1970, by its cause; earlier ones are removed."
        )
        self._last_failure = self._metric(Gauge, "last_failure_seconds", text, "cause")
        self._repeated = self._unlabelled(Counter, "repeated_items", "Items run again, because their run was ended.")
        self._shed = self._metric(Counter, "shed", "Requests rejected on arrival.", "reason")
        for metric, reasons in ((self._shed, SHED), (self._ended, ENDED)):
            for reason in reasons:  # from 0, because Prometheus sees no increase in a new time series
                metric.labels(bundle, reason)
        self._lines_lost = self._unlabelled(Counter, "log_lines_lost", "Lines of the access log that were not written.")
        self._captured = self._unlabelled(Counter, "captured_rows", "Rows of requests written to the capture folder.")
        text = "Rows of sampled requests that were not written to the capture folder."
        self._capture_dropped = self._unlabelled(Counter, "capture_dropped", text)
        self._gauges = {name: self._unlabelled(Gauge, name, text) for name, text in GAUGES.items()}

    # --- events of the data plane ------------------------------------------------------------------------------------

    def ran(self, run: RunStats) -> None:
        self._batch_items.observe(run.items)
        self._batch_tokens.observe(run.tokens)
        self._padding.observe(run.tokens / run.padded)
        self._compute.observe(run.seconds)
        for seconds in run.waited:
            self._queue.observe(seconds)
        if run.raised:
            self._poison.inc(run.raised)

    def hit(self) -> None:
        self._hits.inc()

    def missed(self, items: int) -> None:
        self._misses.inc(items)

    def shared(self, items: int) -> None:
        self._shared.inc(items)

    def dropped(self, items: int) -> None:
        self._dropped.inc(items)

    def shed(self, reason: str) -> None:
        self._shed.labels(bundle=self._bundle, reason=reason).inc()

    def ended(self, reason: str, cause: str) -> None:
        self._ended.labels(bundle=self._bundle, reason=reason).inc()
        self.failed(cause.partition("\n")[0])

    def failed(self, cause: str) -> None:
        self._last_failure.clear()
        self._last_failure.labels(self._bundle, PROCESS.sub("process", cause)).set_to_current_time()

    def repeated(self, items: int) -> None:
        self._repeated.inc(items)

    # --- events of the server ----------------------------------------------------------------------------------------

    def completed(self, route: str, status: int, seconds: float) -> None:
        """Record a completed request."""
        self._requests(route, status).inc()
        self._latency(route).observe(seconds)

    def lines_lost(self, lines: int) -> None:
        """Record lines of the access log that were not written."""
        self._lines_lost.inc(lines)

    def captured(self, rows: int) -> None:
        """Record rows that were written to the capture folder."""
        self._captured.inc(rows)

    def capture_dropped(self, rows: int) -> None:
        """Record rows of sampled requests that were not written."""
        self._capture_dropped.inc(rows)

    def exposition(self, accept: str, **gauges: float) -> tuple[bytes, str]:
        """The metrics page in the format that the Accept header requests, and its content type."""
        for name, value in gauges.items():
            self._gauges[name].set(value)
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type

    def _metric(self, kind: type[M], name: str, text: str, *labels: str, **more: Any) -> M:
        return kind(f"likewise_{name}", text, ("bundle", *labels), registry=self.registry, **more)

    def _unlabelled(self, kind: type[M], name: str, text: str, **more: Any) -> M:
        """A metric without labels other than `bundle`."""
        return self._metric(kind, name, text, **more).labels(self._bundle)
