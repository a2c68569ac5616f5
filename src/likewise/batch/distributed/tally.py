"""Progress of a job, from the results that workers have written."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from likewise.batch.distributed.staging import ChunkFile, Staging
from likewise.batch.job import Progress
from likewise.batch.scorer import BROKEN_AFTER, broken_model
from likewise.core.errors import LikewiseError

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

        status: of the system that runs the job, for display.
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
