"""The room behind every front door: batching across callers, isolation of poison, draining. Knows no HTTP."""

from likewise.dataplane.plane import DataPlane
from likewise.dataplane.thread import DaemonThread

__all__ = ["DaemonThread", "DataPlane"]
