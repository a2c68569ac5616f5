"""The figures of an endpoint in CloudWatch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from likewise.targets.base import Traffic
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.inspection import require_endpoint

DAY_S = 24 * 3600
FIGURES = {  # the figure's name to the metric in CloudWatch and its statistic
    "requests": ("Invocations", "Sum"),
    "errors": ("Invocation5XXErrors", "Sum"),
    "refused": ("Invocation4XXErrors", "Sum"),
    "p50_ms": ("ModelLatency", "p50"),
    "p99_ms": ("ModelLatency", "p99"),
}
MICROSECONDS = 1000  # in a millisecond


def traffic_of(aws: Aws, name: str) -> Traffic:
    """The figures of today (UTC), summed over the variants; response times only if there is one variant.

    CloudWatch gets them a minute or more after the requests, and has no memory in bytes.
    """
    variants = require_endpoint(aws, name).description.get("ProductionVariants", ())
    names = [each["VariantName"] for each in variants]
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    queries = [_query(name, variant, figure, at) for at, variant in enumerate(names) for figure in FIGURES]
    period = {"StartTime": today, "EndTime": today + timedelta(seconds=DAY_S)}  # one value of each metric
    results = aws.pages("cloudwatch", "get_metric_data", "MetricDataResults", MetricDataQueries=queries, **period)
    values: dict[str, list[float]] = {figure: [] for figure in FIGURES}
    for each in results:
        values[each["Id"].rpartition("_at_")[0]] += each["Values"]
    known: dict[str, Any] = {}
    for figure, found in values.items():
        if found and not figure.endswith("_ms"):
            known[figure] = int(sum(found))
        elif len(found) == 1:
            known[figure] = round(found[0] / MICROSECONDS, 3)
    replicas = sum(each.get("CurrentInstanceCount", 0) for each in variants)
    return Traffic("since 00:00 UTC, by CloudWatch", **known, replicas=replicas)


def _query(name: str, variant: str, figure: str, at: int) -> dict[str, Any]:
    """The query of a figure of a variant; at: the variant's number, because an id may not contain its name."""
    metric, statistic = FIGURES[figure]
    dimensions = [{"Name": "EndpointName", "Value": name}, {"Name": "VariantName", "Value": variant}]
    described = {"Namespace": "AWS/SageMaker", "MetricName": metric, "Dimensions": dimensions}
    return {"Id": f"{figure}_at_{at}", "MetricStat": {"Metric": described, "Period": DAY_S, "Stat": statistic}}
