"""Prometheus metrics, each with the label `bundle`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from likewise.dataplane import Observer, Ran

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384)
RATIO = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1.0)


class Metrics(Observer):
    """What the service counts; a registry of its own, so that several services may live in one process."""

    def __init__(self, bundle: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._bundle = bundle
        requests = self._counter("requests", "Requests answered.", "route", "status")
        self._requests: Callable[[str, int], Counter] = cache(partial(requests.labels, bundle))
        latency = self._histogram("request_seconds", "From the request's headers to its answer.", SECONDS, "route")
        self._latency: Callable[[str], Histogram] = cache(partial(latency.labels, bundle))
        one = {"bundle": bundle}
        self._batch_items = self._histogram("batch_items", "Items in one run of the engine.", ITEMS).labels(**one)
        self._batch_tokens = self._histogram("batch_tokens", "Tokens in one run.", TOKENS).labels(**one)
        self._padding = self._histogram("padding_efficiency", "Tokens over padded tokens of a run.", RATIO).labels(
            **one
        )
        self._queue = self._histogram("queue_seconds", "Wait of an item for the engine.", SECONDS).labels(**one)
        self._compute = self._histogram("compute_seconds", "Time of one run.", SECONDS).labels(**one)
        self._hits = self._counter("cache_hits", "Items answered from the cache.").labels(**one)
        self._misses = self._counter("cache_misses", "Items of a pure model that were computed.").labels(**one)
        self._shared = self._counter("shared_items", "Items that joined an equal one on its way.").labels(**one)
        self._dropped = self._counter("dropped_items", "Items never computed: nobody waited any more.").labels(**one)
        self._poison = self._counter("poison_items", "Items on which the model raised.").labels(**one)
        self._shed = self._counter("shed", "Calls refused at arrival.", "reason")
        self._gauges = {
            name: self._gauge(name, text)
            for name, text in (
                ("queue_items", "Items that wait for the engine."),
                ("queue_tokens", "Their tokens."),
                ("worker_restarts", "Worker processes replaced since the start."),
            )
        }

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
            self._gauges[name].labels(bundle=self._bundle).set(value)
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"likewise_{name}", text, ("bundle", *labels), registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"likewise_{name}", text, ("bundle",), registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"likewise_{name}", text, ("bundle", *labels), buckets=buckets, registry=self.registry)
