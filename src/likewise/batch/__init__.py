"""Batch jobs: read files, write the same rows with their predictions. Uses engines only through their protocol."""

from likewise.batch.job import JobReport, Progress
from likewise.batch.runners import score
from likewise.batch.score_options import ScoreOptions

__all__ = ["JobReport", "Progress", "ScoreOptions", "score"]
