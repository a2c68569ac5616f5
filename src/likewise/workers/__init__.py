"""Engines in separate worker processes, which isolate the GIL and crashes; the pool is one `core.engine.Engine`."""

from likewise.workers.pool import WorkerPool, open_pool

__all__ = ["WorkerPool", "open_pool"]
