"""How far a job on Spark is: by the results that its executors have left, and what Spark itself says of its tasks."""

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

COUNTED = ("rows", "tokens", "duplicates", "answered", "refused")  # in each chunk


class Tally:
    """Counts of the chunks that are scored."""

    def __init__(self, tell: Callable[[Progress], None]) -> None:
        self._tell = tell
        self._started = time.monotonic()
        self._staging: Staging | None = None
        self._seen: set[str] = set()
        self._total = self._resumed = 0
        self._counts: Counter[str] = Counter()
        self._first: Mapping[str, str] | None = None
        self._status = ""

    @property
    def rows(self) -> int:
        """Of the chunks that are scored."""
        return self._counts["rows"]

    def begin(self, chunks: Sequence[ChunkFile], staging: Staging, *, resumed: bool) -> None:
        """The input is known; what earlier runs have scored counts from now on."""
        self._staging = staging
        self._total = sum(chunk.rows for chunk in chunks)
        if resumed:
            self._count(chunks)
        self._resumed = self.rows
        self._say()

    def look(self, chunks: Sequence[ChunkFile], status: str = "") -> None:
        """See which of `chunks` are scored by now; ModelFailed where the model answers nothing at all.

        status: as `status_of` gives it.
        """
        told, self._status = self._status, status
        if self._count(chunks) or status != told:
            self._say()
        refused = self._counts["refused"]
        if refused >= BROKEN_AFTER and not self._counts["answered"] and self._first is not None:
            raise broken_model(refused, LikewiseError.from_dict(self._first))

    def _count(self, chunks: Sequence[ChunkFile]) -> bool:
        assert self._staging is not None  # noqa: S101  `begin` comes first
        found = False
        for chunk in chunks:
            if chunk.name not in self._seen and (counts := self._staging.result(chunk)) is not None:
                self._seen.add(chunk.name)
                self._counts.update({name: counts[name] for name in COUNTED})
                self._first = self._first or counts["first_refused"]
                found = True
        return found

    def _say(self) -> None:
        seconds = time.monotonic() - self._started
        share = self.rows / max(1, self._total)
        counts = (self._counts["tokens"], seconds, self._counts["duplicates"], self._resumed, self._status)
        self._tell(Progress(self.rows, self._total, share, *counts))


def status_of(spark: Any) -> str:
    """Executors, and the tasks of the stages that run now, of the whole session; empty on Spark Connect."""
    if is_connect(spark):
        return ""
    with suppress(Exception):  # only shown; the session may be ending
        context = spark.sparkContext
        tracker = context.statusTracker()
        stages = [found for each in tracker.getActiveStageIds() if (found := tracker.getStageInfo(each)) is not None]
        # the driver is one of them; PySpark's own list of executors asks the JVM nine questions for each
        executors = context._jsc.sc().getExecutorMemoryStatus().size() - 1
        said = [f"{executors} executor{'s' * (executors > 1)}"] if executors else []
        if stages:
            done, tasks = sum(s.numCompletedTasks for s in stages), sum(s.numTasks for s in stages)
            said.append(f"{done} of {tasks} tasks")
        return ", ".join(said)
    return ""
