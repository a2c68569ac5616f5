"""Memory of processes, as Linux tells of it in /proc."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROC = Path("/proc")
EVERY_S = 0.5
WORKER = "pyspark.daemon"  # in the command line of a Python worker of Spark


class Peak:
    """The largest memory that was seen. mb: in MB (10^6 bytes), 0 before the first look."""

    def __init__(self) -> None:
        self.mb = 0.0

    def see(self, mb: float) -> None:
        """One look."""
        self.mb = max(self.mb, mb)


def resident_mb(pid: int) -> float:
    """Resident memory of a process, shared pages included, in MB; OSError where it has ended."""
    return _kb(PROC / str(pid) / "status", "VmRSS:") * 1024 / 1e6


def proportional_mb(pid: int) -> float:
    """The same with every shared page divided by the processes that share it (PSS), in MB."""
    return _kb(PROC / str(pid) / "smaps_rollup", "Pss:") * 1024 / 1e6


def family(pid: int) -> list[int]:
    """The process, those of its group, and all that descend from any of them."""
    parents = dict(_parents())
    found = {pid, *(one for one, (_, group) in parents.items() if group == pid)}
    while grown := {one for one, (parent, _) in parents.items() if parent in found} - found:
        found |= grown
    return sorted(found)


@contextmanager
def peak_of(pid: int) -> Iterator[Peak]:
    """Looks twice a second at the resident memory of the process's family, summed: shared pages count in each."""
    with _watched(lambda: sum(map(_resident_or_none, family(pid)))) as peak:
        yield peak


@contextmanager
def largest_of(pid: int, word: str) -> Iterator[Peak]:
    """Looks twice a second for the process of the family with the highest peak so far; word: in its command line."""
    with _watched(lambda: largest(pid, word)) as peak:
        yield peak


def largest(pid: int, word: str) -> float:
    """The highest peak until now (VmHWM) of any process of the family with `word` in its command line, in MB."""
    return max((_peak_or_none(one) for one in family(pid) if _has(one, word)), default=0.0)


@contextmanager
def _watched(look: Callable[[], float]) -> Iterator[Peak]:
    peak, ended = Peak(), threading.Event()

    def watch() -> None:
        while not ended.wait(EVERY_S):
            peak.see(look())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _parents() -> Iterator[tuple[int, tuple[int, int]]]:
    """Of every process: its parent and its group. Source: proc(5), /proc/PID/stat, fields 4 and 5."""
    for path in PROC.glob("[0-9]*/stat"):
        try:
            after_name = path.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        yield int(path.parent.name), (int(after_name[1]), int(after_name[2]))


def _has(pid: int, word: str) -> bool:
    try:
        return word.encode() in (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False


def _peak_or_none(pid: int) -> float:
    """VmHWM: what it held at most until now, in MB."""
    try:
        return _kb(PROC / str(pid) / "status", "VmHWM:") * 1024 / 1e6
    except (OSError, IndexError):
        return 0.0


def _resident_or_none(pid: int) -> float:
    try:
        return resident_mb(pid)
    except (OSError, IndexError):  # it has ended meanwhile, or is a zombie with no memory
        return 0.0


def _kb(path: Path, name: str) -> int:
    return int(path.read_text().partition(name)[2].split()[0])
