"""How far a job is: a bar on a terminal, a plain line now and then elsewhere; always on stderr."""

from __future__ import annotations

import time

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from likewise.batch import Progress as Stand
from likewise.cli.screen import err

EVERY_S = 10.0  # between plain lines


class JobProgress:
    """Shows what a job tells. A context."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._first: Stand | None = None
        self._told = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
            console=err,
            disable=not err.is_terminal,
        )
        self._task = self._bar.add_task(title, total=1.0, said="loading the model")

    def __enter__(self) -> JobProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.live.transient = kind is not None  # what failed says so itself
        self._bar.stop()

    def show(self, stand: Stand) -> None:
        """Where the job stands."""
        self._first = self._first or stand
        said = describe(stand, self._first)
        self._bar.update(self._task, completed=stand.fraction, said=said)
        if not err.is_terminal and time.monotonic() - self._told >= EVERY_S:
            self._told = time.monotonic()
            err.print(f"{self._title}: {100 * stand.fraction:.1f}%, {said}", markup=False, soft_wrap=True)


def describe(stand: Stand, first: Stand) -> str:
    """Rows, rows/s of this run, duplicates, the runner's status, and the time left by the pace since `first`."""
    rate = (stand.rows - stand.resumed) / stand.seconds if stand.seconds else 0.0
    of = f"/{stand.total:,}" if stand.total is not None else ""
    said = [f"{stand.rows:,}{of} rows", f"{rate:,.0f} rows/s"]
    if stand.duplicates:
        said.append(f"{stand.duplicates:,} repeated")
    if stand.resumed:
        said.append(f"{stand.resumed:,} done before")
    if stand.status:
        said.append(stand.status)
    if stand.fraction > first.fraction:
        left = (1 - stand.fraction) * (stand.seconds - first.seconds) / (stand.fraction - first.fraction)
        said.append(f"{_clock(left)} left")
    return ", ".join(said)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
