"""Between servers and the engine: admission, batching across callers, caching, isolation of failing items. No HTTP."""

from likewise.dataplane.observer import Observer, RunStats
from likewise.dataplane.plane import DataPlane, PlaneOptions
from likewise.dataplane.thread import DaemonThread
from likewise.dataplane.timing import Timing, Window

__all__ = ["DaemonThread", "DataPlane", "Observer", "PlaneOptions", "RunStats", "Timing", "Window"]
