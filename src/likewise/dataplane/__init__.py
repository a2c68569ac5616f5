"""Between servers and the engine: admission, batching across callers, cache, isolation of bad items. Knows no HTTP."""

from likewise.dataplane.observer import Observer, Ran
from likewise.dataplane.plane import DataPlane, PlaneOptions
from likewise.dataplane.thread import DaemonThread

__all__ = ["DaemonThread", "DataPlane", "Observer", "PlaneOptions", "Ran"]
