"""Engines in separate worker processes, which isolate the GIL and crashes; the pool is one `core.engine.Engine`."""

from likewise.workers.pool import PoolOptions, WorkerPool, open_pool
from likewise.workers.sizing import automatic_count

__all__ = ["PoolOptions", "WorkerPool", "automatic_count", "open_pool"]
