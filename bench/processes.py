"""Memory of processes, read from Linux's /proc."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROC = Path("/proc")
EVERY_S = 0.5
WORKER = "pyspark.daemon"  # part of the command line of Spark's Python workers


class Peak:
    """The largest memory observed. mb: in MB (10^6 bytes), 0 before the first sample."""

    def __init__(self) -> None:
        self.mb = 0.0

    def update(self, mb: float) -> None:
        """Add a sample."""
        self.mb = max(self.mb, mb)


def resident_mb(pid: int) -> float:
    """Resident memory of a process including shared pages, in MB; raises OSError if it has exited."""
    return _kb(PROC / str(pid) / "status", "VmRSS:") * 1024 / 1e6


def proportional_mb(pid: int) -> float:
    """Memory in which each shared page is divided by the number of processes that share it (PSS), in MB."""
    return _kb(PROC / str(pid) / "smaps_rollup", "Pss:") * 1024 / 1e6


def family(pid: int) -> list[int]:
    """The process, the processes in its group, and all their descendants."""
    parents = dict(_parents())
    members = {pid, *(one for one, (_, group) in parents.items() if group == pid)}
    while grown := {one for one, (parent, _) in parents.items() if parent in members} - members:
        members |= grown
    return sorted(members)


@contextmanager
def peak_of(pid: int) -> Iterator[Peak]:
    """Sample the total resident memory of the process's family twice a second; shared pages count in each."""
    with _sampled(lambda: sum(map(_resident_or_none, family(pid)))) as peak:
        yield peak


@contextmanager
def largest_of(pid: int, word: str) -> Iterator[Peak]:
    """Sample twice a second the highest peak among processes of the family with `word` in their command line."""
    with _sampled(lambda: largest(pid, word)) as peak:
        yield peak


def largest(pid: int, word: str) -> float:
    """The highest peak so far (VmHWM) of any process of the family with `word` in its command line, in MB."""
    return max((_peak_or_none(one) for one in family(pid) if _has(one, word)), default=0.0)


@contextmanager
def _sampled(sample: Callable[[], float]) -> Iterator[Peak]:
    peak, stopped = Peak(), threading.Event()

    def watch() -> None:
        while not stopped.wait(EVERY_S):
            peak.update(sample())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stopped.set()
        thread.join()


def _parents() -> Iterator[tuple[int, tuple[int, int]]]:
    """The parent and the group of every process. Source: proc(5), /proc/PID/stat, fields 4 and 5."""
    for path in PROC.glob("[0-9]*/stat"):
        try:
            after_name = path.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # the process has exited
            continue
        yield int(path.parent.name), (int(after_name[1]), int(after_name[2]))


def _has(pid: int, word: str) -> bool:
    try:
        return word.encode() in (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False


def _peak_or_none(pid: int) -> float:
    """The process's peak resident memory (VmHWM) in MB, or 0."""
    try:
        return _kb(PROC / str(pid) / "status", "VmHWM:") * 1024 / 1e6
    except (OSError, IndexError):
        return 0.0


def _resident_or_none(pid: int) -> float:
    try:
        return resident_mb(pid)
    except (OSError, IndexError):  # the process has exited, or is a zombie without memory
        return 0.0


def _kb(path: Path, name: str) -> int:
    return int(path.read_text().partition(name)[2].split()[0])
