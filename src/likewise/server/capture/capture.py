"""Captures sampled requests: they are queued after their responses, and written in a thread."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from likewise.core.signature import Signature
from likewise.server.capture.columns import Answer, Columns, Record, Sample, records_of
from likewise.server.capture.folder import CaptureFolder

logger = logging.getLogger("likewise.server")

WRITE_S = 20.0  # after its first row, a file is written at the latest
FILE_ROWS = 10_000
FILE_BYTES = 16 << 20  # of its requests, by `_size`
HELD_BYTES = 64 << 20  # requests that are not written yet; others are dropped
COLLECT_S = 0.5  # the thread handles what has arrived in this time at once, as each switch of threads takes time
CELL_BYTES, ROW_BYTES = 100, 1000  # memory of a decoded value, and of what is recorded of a row in addition
TIDY_S = 3600.0  # between deletions of old files while nothing is captured
CLOSE_S = 5.0  # a stopping server usually has most of its drain time left


class Capture:
    """Writes the requests whose id is in the sample to a folder.

    rate: the fraction of ids, chosen by their hash: replicas, and repetitions of a request, agree.
    bundle: digest.  on_written, on_dropped: called with numbers of rows, in any thread.
    """

    def __init__(
        self,
        folder: CaptureFolder,
        signature: Signature,
        *,
        rate: float,
        bundle: str,
        on_written: Callable[[int], None],
        on_dropped: Callable[[int], None],
    ) -> None:
        self._folder, self._signature, self._bundle = folder, signature, bundle
        self._columns = Columns(signature)
        self._below = rate * 2**32
        self._on_written, self._on_dropped = on_written, on_dropped
        self._arrived: deque[tuple[Sample, Answer]] = deque()
        self._added = 0  # bytes; changed on the event loop only
        self._done = 0  # of these: written or dropped; changed in the thread only
        self._records: list[Record] = []
        self._bytes = 0  # of the requests of these records
        self._due = 0.0  # when they are written at the latest, by `time.monotonic`
        self._failing = self._unfit_logged = False
        self._wake, self._closing = threading.Event(), threading.Event()
        self._file_bytes = min(FILE_BYTES, folder.max_bytes // 4)
        self._thread = threading.Thread(target=self._work, name="likewise-capture", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def close(self) -> None:
        """Write what has been added, within CLOSE_S."""
        self._closing.set()
        self._wake.set()
        await asyncio.to_thread(self._thread.join, CLOSE_S)
        if self._thread.is_alive():
            logger.warning("captured requests are lost: they were not written within %g s", CLOSE_S)

    def wants(self, request_id: str) -> bool:
        """Whether the id is in the sample."""
        return zlib.crc32(request_id.encode()) < self._below

    def add(self, sample: Sample, answer: Answer) -> None:
        """Queue a request whose response was sent; must be called on an event loop."""
        size = _size(sample)
        if self._added - self._done + size > HELD_BYTES:
            self._on_dropped(len(sample.call.table))
            return
        self._added += size
        self._arrived.append((sample, answer))
        if not self._wake.is_set():
            self._wake.set()

    def _work(self) -> None:
        with suppress(Exception):  # the first file reports it
            self._columns.parquet([])  # Arrow imports pandas now, if it is installed, and not when the server stops
        closing = False
        while not closing:
            if not self._wake.wait(max(0.0, self._due - time.monotonic()) if self._records else TIDY_S):
                with suppress(OSError):
                    self._folder.tidy()
            self._wake.clear()  # before the look at `_closing`, which sets both
            closing = self._closing.wait(COLLECT_S)
            while self._arrived:
                self._take(*self._arrived.popleft())
            if self._records and (closing or time.monotonic() >= self._due):
                self._write()

    def _take(self, sample: Sample, answer: Answer) -> None:
        """Add the rows of a request to the next file; write it if it is full."""
        size = _size(sample)
        try:
            records = self._columns.ready(every := records_of(sample, answer, self._bundle, self._signature))
        except Exception as error:  # noqa: BLE001  values of any type; the other requests do not depend on it
            self._lost(len(sample.call.table), f"a request has no form in the files: {type(error).__name__}")
            records = []
        else:
            self._unfit(len(every) - len(records))
        if not records:
            self._done += size
            return
        if not self._records:
            self._due = time.monotonic() + WRITE_S
        self._bytes += size
        self._records += records
        if len(self._records) >= FILE_ROWS or self._bytes >= self._file_bytes:
            self._write()

    def _write(self) -> None:
        """Write the file; if that fails, its rows are dropped, and the first failure of a series is logged."""
        records, self._records = self._records, []
        size, self._bytes = self._bytes, 0
        try:
            data, rows = self._columns.parquet(records)
            if rows:
                self._folder.write(data)
        except Exception as error:  # noqa: BLE001  the service must not depend on it
            self._lost(len(records), f"{self._folder.path} cannot be written: {error}")
        else:
            self._unfit(len(records) - rows)
            self._on_written(rows)
            self._failing = False
        self._done += size

    def _lost(self, rows: int, why: str) -> None:
        """Count dropped rows; the first of a series is logged."""
        self._on_dropped(rows)
        if not self._failing:
            logger.warning("captured requests are lost: %s", why)
        self._failing = True

    def _unfit(self, rows: int) -> None:
        """Count rows with a value that has no form in the files; the first ones are logged, without the value."""
        if not rows:
            return
        self._on_dropped(rows)
        if not self._unfit_logged:
            logger.warning("captured rows are lost if a value has no form in the files: %d so far", rows)
        self._unfit_logged = True


def _size(sample: Sample) -> int:
    """Estimated memory of a request with its predictions, in bytes."""
    table = sample.call.table
    return sample.size + len(table) * (ROW_BYTES + CELL_BYTES * len(table.columns or ("",)))
