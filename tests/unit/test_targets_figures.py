"""Figures of requests from the metrics pages of servers."""

from __future__ import annotations

from math import inf

import pytest

from likewise.server.metrics import Metrics
from likewise.targets.figures import quantile, traffic_of


@pytest.mark.parametrize(
    ("within", "fraction", "value"),
    [
        ({}, 0.5, None),
        ({0.1: 0, inf: 0}, 0.5, None),
        ({0.1: 10, 0.2: 10, inf: 10}, 0.5, 0.05),
        ({0.1: 0, 0.3: 10, inf: 10}, 0.5, 0.2),
        ({0.1: 98, 0.2: 100, inf: 100}, 0.99, 0.15),
        ({0.1: 1, 0.2: 2, inf: 10}, 0.5, 0.2),
    ],
)
def test_quantile_is_interpolated_within_its_bucket(
    within: dict[float, float], fraction: float, value: float | None
) -> None:
    assert quantile(within, fraction) == (value if value is None else pytest.approx(value))


def test_figures_of_several_replicas_are_summed_and_only_inference_counts() -> None:
    pages = []
    for bundle in ("sha256:a", "sha256:b"):
        metrics = Metrics(bundle)
        for route, status in (("/invocations", 200), ("/v2/models/{model}/infer", 500), ("/ready", 503)):
            metrics.completed(route, status, 0.004)
        metrics.completed("/invocations", 422, 20.0)
        metrics.failed("the first cause")
        metrics.ended("death", "the worker process 12 was killed by SIGSEGV\nits output")
        pages.append(metrics.exposition("", worker_bytes=1e9)[0].decode())
    traffic = traffic_of(pages)
    assert (traffic.requests, traffic.errors, traffic.refused, traffic.replicas) == (6, 2, 2, 2)
    assert traffic.last_failure is not None
    assert traffic.last_failure.startswith("the worker process was killed by SIGSEGV, at 20")
    assert pages[0].count("likewise_last_failure_seconds{") == 1
    assert traffic.memory_bytes is not None
    assert traffic.memory_bytes > 2e9
    assert traffic.p50_ms is not None
    assert 2.5 < traffic.p50_ms < 5
    assert traffic.p99_ms is not None
    assert 10_000 < traffic.p99_ms < 30_000
