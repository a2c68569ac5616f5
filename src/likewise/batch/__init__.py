"""Batch jobs: files in, the same rows with their predictions out. Knows the engine only by its protocol."""

from likewise.batch.job import Progress, Report
from likewise.batch.options import ScoreOptions
from likewise.batch.runners import score

__all__ = ["Progress", "Report", "ScoreOptions", "score"]
