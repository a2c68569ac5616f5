"""Batch jobs: files in, the same rows with their predictions out. Knows the engine only by its protocol."""

from likewise.batch.job import Progress, Report
from likewise.batch.runners import score
from likewise.batch.score_options import ScoreOptions

__all__ = ["Progress", "Report", "ScoreOptions", "score"]
