"""Whether the environment requests traces, by OpenTelemetry's standard variables; otherwise nothing is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from likewise.core.errors import MissingExtra, WrongUsage
from likewise.core.extras import install_command

if TYPE_CHECKING:
    from likewise.telemetry.tracer import Tracer

EXPORTER, DISABLED, SAMPLER = "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
KNOWN = ("otlp", "console")
PROTOCOL = "http/protobuf"
TRACES_PER_S = 20.0
"""The most requests per second that are traced, unless a sampler is set."""


def exporters(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The exporters that the environment requests, of KNOWN; empty for none.  Raises WrongUsage for any other."""
    if environment.get(DISABLED, "").strip().lower() == "true":
        return ()
    text = environment.get(EXPORTER, "").strip()
    if not text and any(environment.get(name, "").strip() for name in ENDPOINTS):
        text = "otlp"
    names = tuple(name for each in text.split(",") if (name := each.strip().lower()) not in ("", "none"))
    for name in names:
        if name not in KNOWN:
            raise WrongUsage(f"{EXPORTER} is {text!r}", remedy=f"use {' or '.join(KNOWN)}, or none for no traces")
    protocol = next((value for name in PROTOCOLS if (value := environment.get(name, "").strip())), PROTOCOL)
    if "otlp" in names and protocol != PROTOCOL:
        raise WrongUsage(
            f"the protocol for traces is {protocol!r}, and only {PROTOCOL} is supported",
            remedy=f"set {PROTOCOLS[0]}={PROTOCOL}, and an endpoint for it: collectors listen on port 4318",
        )
    return names


def open_tracer(*, limited: bool = False) -> Tracer | None:
    """What exports spans, or None unless the environment of this process requests it.

    limited: whether at most TRACES_PER_S spans per second start, if no sampler is set.  Raises WrongUsage for an
    unsupported setting, and MissingExtra.
    """
    names = exporters(os.environ)
    if not names:
        return None
    try:
        module = import_module("likewise.telemetry.tracer")
        opened: Tracer = module.Tracer(names, TRACES_PER_S if limited and not os.environ.get(SAMPLER) else None)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        cause = f"the environment requests traces, which need {error.name}, and that is not installed"
        remedy = f"{install_command('telemetry')}, or unset the variables OTEL_…"
        raise MissingExtra(cause, remedy=remedy) from error
    return opened
