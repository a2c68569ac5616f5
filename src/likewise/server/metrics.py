"""Prometheus metrics, each with the label `bundle`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from likewise.dataplane import Observer, Ran

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384)
RATIO = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1.0)
GAUGES = {
    "queue_items": "Items that wait for the engine.",
    "queue_tokens": "Their tokens.",
    "worker_restarts": "Worker processes replaced since the start.",
}

M = TypeVar("M", Counter, Gauge, Histogram)


class Metrics(Observer):
    """What the service counts; a registry of its own, so that several services may live in one process."""

    def __init__(self, bundle: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._bundle = bundle
        requests = self._made(Counter, "requests", "Requests answered.", "route", "status")
        self._requests: Callable[[str, int], Counter] = cache(partial(requests.labels, bundle))
        text = "From the request's headers to its answer."
        latency = self._made(Histogram, "request_seconds", text, "route", buckets=SECONDS)
        self._latency: Callable[[str], Histogram] = cache(partial(latency.labels, bundle))
        self._batch_items = self._own(Histogram, "batch_items", "Items in one run of the engine.", buckets=ITEMS)
        self._batch_tokens = self._own(Histogram, "batch_tokens", "Tokens in one run.", buckets=TOKENS)
        text = "Tokens over padded tokens of a run."
        self._padding = self._own(Histogram, "padding_efficiency", text, buckets=RATIO)
        self._queue = self._own(Histogram, "queue_seconds", "Wait of an item for the engine.", buckets=SECONDS)
        self._compute = self._own(Histogram, "compute_seconds", "Time of one run.", buckets=SECONDS)
        self._hits = self._own(Counter, "cache_hits", "Items answered from the cache.")
        self._misses = self._own(Counter, "cache_misses", "Items of a pure model that were computed.")
        self._shared = self._own(Counter, "shared_items", "Items that joined an equal one on its way.")
        self._dropped = self._own(Counter, "dropped_items", "Items never computed: nobody waited any more.")
        self._poison = self._own(Counter, "poison_items", "Items on which the model raised.")
        self._shed = self._made(Counter, "shed", "Calls refused at arrival.", "reason")
        self._gauges = {name: self._own(Gauge, name, text) for name, text in GAUGES.items()}

    # --- the data plane's side ---------------------------------------------------------------------------------------

    def ran(self, ran: Ran) -> None:
        self._batch_items.observe(ran.items)
        self._batch_tokens.observe(ran.tokens)
        self._padding.observe(ran.tokens / ran.padded)
        self._compute.observe(ran.seconds)
        for seconds in ran.waited:
            self._queue.observe(seconds)
        if ran.raised:
            self._poison.inc(ran.raised)

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

    # --- the server's side -------------------------------------------------------------------------------------------

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests(route, status).inc()
        self._latency(route).observe(seconds)

    def exposition(self, accept: str, **gauges: float) -> tuple[bytes, str]:
        """The page in the form that `accept` asks for, and its content type."""
        for name, value in gauges.items():
            self._gauges[name].set(value)
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type

    def _made(self, kind: type[M], name: str, text: str, *labels: str, **more: Any) -> M:
        return kind(f"likewise_{name}", text, ("bundle", *labels), registry=self.registry, **more)

    def _own(self, kind: type[M], name: str, text: str, **more: Any) -> M:
        """One without further labels."""
        return self._made(kind, name, text, **more).labels(self._bundle)
