"""Progress of a job on Spark: from the results that executors have written, and from Spark's own task status."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from likewise.batch.job import Progress
from likewise.batch.scorer import BROKEN_AFTER, broken_model
from likewise.core.errors import LikewiseError
from likewise.targets.spark.plan import ChunkFile, Staging
from likewise.targets.spark.session import is_connect

COUNTED = ("rows", "tokens", "duplicates", "answered", "refused")  # keys in each result's header


class Tally:
    """The sums of the counts of all scored chunks, reported as progress."""

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self._report_progress = report
        self._started = time.monotonic()
        self._staging: Staging | None = None
        self._seen: set[str] = set()
        self._total = self._resumed = 0
        self._counts: Counter[str] = Counter()
        self._first: Mapping[str, str] | None = None
        self._status = ""

    @property
    def rows(self) -> int:
        """The number of rows in the scored chunks."""
        return self._counts["rows"]

    def start(self, chunks: Sequence[ChunkFile], staging: Staging, *, resumed: bool) -> None:
        """Set the input's chunks; with `resumed`, include those that earlier runs have scored."""
        self._staging = staging
        self._total = sum(chunk.rows for chunk in chunks)
        if resumed:
            self._count(chunks)
        self._resumed = self.rows
        self._report()

    def update(self, chunks: Sequence[ChunkFile], status: str = "") -> None:
        """Count newly scored chunks among `chunks`; ModelFailed if the model has failed on every row so far.

        status: as returned by `status_of`.
        """
        previous, self._status = self._status, status
        if self._count(chunks) or status != previous:
            self._report()
        refused = self._counts["refused"]
        if refused >= BROKEN_AFTER and not self._counts["answered"] and self._first is not None:
            raise broken_model(refused, LikewiseError.from_dict(self._first))

    def _count(self, chunks: Sequence[ChunkFile]) -> bool:
        assert self._staging is not None  # noqa: S101  `start` is called first
        counted = False
        for chunk in chunks:
            if chunk.name not in self._seen and (counts := self._staging.result(chunk)) is not None:
                self._seen.add(chunk.name)
                self._counts.update({name: counts[name] for name in COUNTED})
                self._first = self._first or counts["first_refused"]
                counted = True
        return counted

    def _report(self) -> None:
        seconds = time.monotonic() - self._started
        fraction = self.rows / max(1, self._total)
        counts = (self._counts["tokens"], seconds, self._counts["duplicates"], self._resumed, self._status)
        self._report_progress(Progress(self.rows, self._total, fraction, *counts))


def status_of(spark: Any) -> str:
    """The number of executors and the tasks of running stages in the whole session; empty on Spark Connect."""
    if is_connect(spark):
        return ""
    with suppress(Exception):  # for display only; the session may be stopping
        context = spark.sparkContext
        tracker = context.statusTracker()
        stages = [info for each in tracker.getActiveStageIds() if (info := tracker.getStageInfo(each)) is not None]
        # the driver is one of them; PySpark's own list of executors makes nine calls to the JVM for each
        executors = context._jsc.sc().getExecutorMemoryStatus().size() - 1
        parts = [f"{executors} executor{'s' * (executors > 1)}"] if executors else []
        if stages:
            done, tasks = sum(s.numCompletedTasks for s in stages), sum(s.numTasks for s in stages)
            parts.append(f"{done} of {tasks} tasks")
        return ", ".join(parts)
    return ""
