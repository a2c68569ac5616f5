"""The figures of a deployment from the metrics pages of its servers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from likewise.targets.base import Traffic

PERIOD = "since its processes started"


def traffic_of(pages: Iterable[str]) -> Traffic:
    """The sum of the figures in the servers' metrics pages, in Prometheus' text format; one page per replica.

    Only inference requests count.  p50 and p99 come from a histogram by linear interpolation within the bucket that
    contains the quantile, so they are only as precise as the bucket; beyond the last limit they are that limit.
    """
    statuses, within, memory, replicas, failed = Counter[int](), Counter[float](), 0.0, 0, 0.0
    failures: list[tuple[float, str]] = []
    for page in pages:
        replicas += 1
        for name, labels, value in _samples(page):
            if name == "likewise_requests_total" and _is_inference(labels):
                statuses[int(labels["status"])] += int(value)
            elif name == "likewise_request_seconds_bucket" and _is_inference(labels):
                within[float(labels["le"])] += int(value)
            elif name in ("process_resident_memory_bytes", "likewise_worker_bytes"):
                memory += value
            elif name == "likewise_poison_items_total":
                failed += value
            elif name == "likewise_last_failure_seconds":
                failures.append((value, labels["cause"]))
    return Traffic(
        PERIOD,
        requests=statuses.total(),
        errors=_between(statuses, 500, 599) - statuses[503],
        shed=statuses[503],
        refused=_between(statuses, 400, 499),
        failed_rows=int(failed),
        last_failure=_last(failures),
        p50_ms=_milliseconds(within, 0.5),
        p99_ms=_milliseconds(within, 0.99),
        memory_bytes=int(memory) or None,
        replicas=replicas,
    )


def quantile(within: Mapping[float, float], fraction: float) -> float | None:
    """The value at the quantile `fraction`, interpolated linearly within its bucket; None without observations.

    within: the number of observations that are at most the key, for each limit of a bucket, including infinity.
    """
    limits = sorted(within)
    total = within[limits[-1]] if limits else 0
    if not total:
        return None
    rank, lower, below = fraction * total, 0.0, 0.0
    for limit in limits[:-1]:
        if within[limit] >= rank:
            return lower + (limit - lower) * (rank - below) / (within[limit] - below)
        lower, below = limit, within[limit]
    return lower


def _samples(page: str) -> Iterable[tuple[str, Mapping[str, str], float]]:
    from prometheus_client.parser import text_string_to_metric_families  # only commands that show figures need it

    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def _last(failures: Sequence[tuple[float, str]]) -> str | None:
    """The cause of the last failure, and its time in UTC."""
    if not failures:
        return None
    seconds, cause = max(failures)
    return f"{cause}, at {datetime.fromtimestamp(seconds, UTC).isoformat(timespec='seconds')}"


def _is_inference(labels: Mapping[str, str]) -> bool:
    return labels["route"] == "/invocations" or labels["route"].endswith("/infer")


def _between(statuses: Mapping[int, int], first: int, last: int) -> int:
    return sum(count for status, count in statuses.items() if first <= status <= last)


def _milliseconds(within: Mapping[float, float], fraction: float) -> float | None:
    seconds = quantile(within, fraction)
    return None if seconds is None else round(seconds * 1000, 3)
