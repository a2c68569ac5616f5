"""The results that workers have written: added to the output in the input's order, and counted for progress."""

from __future__ import annotations

import time
from collections.abc import Sequence

from likewise.batch.distributed.staging import ChunkFile, Staging
from likewise.batch.journal import ChunkCounts
from likewise.batch.layout import remove
from likewise.batch.run import Run
from likewise.core.errors import OutputRefused

SHARED_S = 60.0  # after which every host sees the files of the others; NFS remembers that a file was missing


class Tally:
    """The chunks of a job and their results.  missing: the chunks that have none at the start."""

    def __init__(self, run: Run, staging: Staging, chunks: Sequence[ChunkFile]) -> None:
        """Add the results of earlier runs that are not in the output yet."""
        self._run = run
        self._output = run.output
        self._staging = staging
        self._chunks = chunks
        self._total = sum(chunk.rows for chunk in chunks)
        rest = chunks[self._output.state.chunks :]
        self._unknown = {chunk.name for chunk in rest}
        self._waiting: dict[str, ChunkCounts] = {}  # results that are not in the output, as earlier ones are missing
        self._status = ""
        self._collect(rest)
        self.missing = [chunk for chunk in rest if chunk.name in self._unknown]
        run.resumed = self._output.state.rows + self._output.waiting
        self._report()

    def update(self, chunks: Sequence[ChunkFile], status: str = "") -> None:
        """Add new results among those of `chunks`; ModelFailed if the model has failed on every row so far.

        status: of the system that runs the job, for display.
        """
        previous, self._status = self._status, status
        if self._collect(chunks) or status != previous:
            self._report()

    def finish(self) -> None:
        """Add the results of all remaining chunks; OutputRefused if one has none within SHARED_S."""
        rest = self._chunks[self._output.state.chunks :]
        until = time.monotonic() + SHARED_S
        for chunk in rest:
            while self._staging.counts(chunk.name) is None:
                if time.monotonic() > until:
                    raise OutputRefused(
                        f"a worker has scored the chunk {chunk.name}, but its result is not in {self._staging.scored}",
                        remedy="choose an OUTPUT on storage that the driver and all workers share",
                    )
                time.sleep(0.2)
        self._add(rest)

    def _collect(self, chunks: Sequence[ChunkFile]) -> bool:
        """Add new results among those of `chunks`; whether there are any."""
        found = False
        for chunk in chunks:
            if chunk.name in self._unknown and (counts := self._staging.counts(chunk.name)) is not None:
                self._unknown.remove(chunk.name)
                self._waiting[chunk.name] = counts
                found = True
        start = end = self._output.state.chunks
        while end < len(self._chunks) and self._chunks[end].name in self._waiting:
            end += 1
        self._add(self._chunks[start:end])
        return found

    def _add(self, chunks: Sequence[ChunkFile]) -> None:
        """Add the results of the next chunks to the output, and delete their files."""
        self._run.add(map(self._staging.load, chunks))
        for chunk in chunks:
            remove(self._staging.scored / chunk.name)
            self._waiting.pop(chunk.name, None)
        self._output.waiting = sum(counts.rows for counts in self._waiting.values())

    def _report(self) -> None:
        rows, waiting = self._output.waiting, self._waiting.values()
        tokens, duplicates = sum(each.tokens for each in waiting), sum(each.duplicates for each in waiting)
        fraction = (self._output.state.rows + rows) / max(1, self._total)
        self._run.report_progress(self._total, fraction, rows, tokens, duplicates, self._status)
