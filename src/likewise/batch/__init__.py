"""Batch jobs: read files, write the same rows with their predictions. Uses engines only through their protocol."""

from likewise.batch.job import JobReport, Progress
from likewise.batch.runners import score
from likewise.batch.score_options import ScoreOptions
from likewise.core.renamed import renamed

__all__ = ["JobReport", "Progress", "ScoreOptions", "score"]
__getattr__ = renamed(__name__, {"Report": "JobReport"})
