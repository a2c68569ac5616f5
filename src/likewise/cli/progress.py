"""Progress of a batch job on stderr: a bar on a terminal, otherwise a plain line every few seconds."""

from __future__ import annotations

import time

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from likewise.batch import Progress as BatchProgress
from likewise.cli.screen import err

LINE_INTERVAL_S = 10.0  # between plain lines


class JobProgress:
    """Displays the progress of a job. A context manager."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._first: BatchProgress | None = None
        self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=err,
            disable=not err.is_terminal,
        )
        self._task = self._bar.add_task(title, total=1.0, detail="loading the model")

    def __enter__(self) -> JobProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.live.transient = kind is not None  # after a failure the bar is removed; the error is printed instead
        self._bar.stop()

    def show(self, progress: BatchProgress) -> None:
        """Display `progress`, the current state of the job."""
        self._first = self._first or progress
        detail = progress.describe(self._first)
        self._bar.update(self._task, completed=progress.fraction, detail=detail)
        if not err.is_terminal and time.monotonic() - self._last_line >= LINE_INTERVAL_S:
            self._last_line = time.monotonic()
            err.print(f"{self._title}: {100 * progress.fraction:.1f}%, {detail}", markup=False, soft_wrap=True)
