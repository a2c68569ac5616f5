"""Names and values that describe a deployment to people."""

from __future__ import annotations

from collections.abc import Mapping

from likewise.targets.base import Receipt, Status, Traffic


def facts_of(receipt: Receipt, current: Status | None = None) -> list[tuple[str, str]]:
    """Names and values that describe the deployment by its receipt, overridden by the target's `current` status."""
    model = receipt.model
    facts = {
        "target": receipt.target,
        "bundle": model.digest,
        "build": model.build,
        "source": model.source,
        **receipt.shown(),
    }
    if current is not None:
        state = {"state": f"{current.state} {current.about}".strip(), "engine": current.engine}
        facts = {**state, **_figures(current.traffic or Traffic()), **facts, **current.details}
        facts |= {"bundle": current.bundle, "build": current.build} if current.bundle else {}
    lines = [(key, _words(value)) for key, value in facts.items() if value not in (None, "", [], {})]
    return [*lines, ("since", receipt.updated)]


def _words(value: object) -> str:
    """Digests shortened, lists with commas, mappings as `name value`."""
    if isinstance(value, str) and value.startswith("sha256:"):
        return value[:19]
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(map(_words, value))
    return str(value)


def _figures(traffic: Traffic) -> dict[str, str | None]:
    """The figures in words, None for what is not known."""

    def text(value: float | None, form: str, *more: object) -> str | None:
        return None if value is None else form.format(value, *more)

    return {
        "requests": text(traffic.requests, "{:,} {}", traffic.period),
        "errors": text(traffic.errors, "{:,}"),
        "shed": text(traffic.shed, "{:,}"),
        "refused": text(traffic.refused, "{:,}"),
        "failed rows": text(traffic.failed_rows, "{:,}"),
        "last failure": traffic.last_failure,
        "p50": text(traffic.p50_ms, "{:,.4g} ms"),
        "p99": text(traffic.p99_ms, "{:,.4g} ms"),
        "memory": text(traffic.memory_bytes and traffic.memory_bytes / 1e6, "{:,.0f} MB"),
        "replicas": text(traffic.replicas, "{}"),
    }
