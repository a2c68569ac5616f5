"""Traces by OpenTelemetry: the only package that imports it, and only if the environment requests traces."""

from likewise.telemetry.parent import Parent
from likewise.telemetry.switch import open_tracer

__all__ = ["Parent", "open_tracer"]
