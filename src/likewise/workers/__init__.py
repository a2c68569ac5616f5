"""Engines in processes of their own, together one `core.engine.Engine`; the model's lock and its crashes stay there."""

from likewise.workers.pool import WorkerPool, open_pool

__all__ = ["WorkerPool", "open_pool"]
