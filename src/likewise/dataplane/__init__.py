"""The room behind every front door: batching across callers, isolation of poison, draining. Knows no HTTP."""

from likewise.dataplane.plane import DataPlane

__all__ = ["DataPlane"]
