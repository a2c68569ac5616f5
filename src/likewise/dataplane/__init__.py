"""The room behind every front door: admission, batching across callers, cache, isolation of poison. Knows no HTTP."""

from likewise.dataplane.observer import Observer, Ran
from likewise.dataplane.plane import DataPlane, PlaneOptions
from likewise.dataplane.thread import DaemonThread

__all__ = ["DaemonThread", "DataPlane", "Observer", "PlaneOptions", "Ran"]
