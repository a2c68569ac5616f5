"""Jobs on Spark: its tasks are the workers of `likewise.batch.distributed`.  See `architecture/spark.md`."""

from __future__ import annotations

import logging

from likewise.batch.distributed.run import model_of
from likewise.batch.distributed.run import run as run_on
from likewise.batch.job import JobReport, ScoreJob
from likewise.bundles.open import open_exactly
from likewise.targets.spark.inputs import open_input
from likewise.targets.spark.jobs import Jobs
from likewise.targets.spark.session import is_connect, session
from likewise.targets.spark.udf import place_model

log = logging.getLogger("likewise.spark")


def run(job: ScoreJob) -> JobReport:
    """Score `job.source` on Spark; see `likewise.batch.score`.

    Raises what the local runner raises, MissingExtra (no PySpark, no Java), EngineUnavailable (Spark does not start, or
    its job failed), OutputRefused also if executors cannot write to the folder of OUTPUT.
    """
    model = model_of(job)
    spark, created = session(job.options.master, job.options.runner_conf)
    try:
        if not is_connect(spark) and spark.sparkContext.uiWebUrl:
            log.info("Spark UI of this job: %s", spark.sparkContext.uiWebUrl)
        place = lambda: Jobs(spark, place_model(spark, open_exactly(model), model, None))  # noqa: E731
        return run_on(job, lambda: open_input(spark, job), place)
    finally:
        if created:
            spark.stop()
