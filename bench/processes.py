"""Memory of processes, as Linux tells of it in /proc."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROC = Path("/proc")
EVERY_S = 0.5


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
    peak, ended = Peak(), threading.Event()

    def look() -> None:
        while not ended.wait(EVERY_S):
            peak.see(sum(map(_resident_or_none, family(pid))))

    thread = threading.Thread(target=look, daemon=True)
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


def _resident_or_none(pid: int) -> float:
    try:
        return resident_mb(pid)
    except (OSError, IndexError):  # it has ended meanwhile, or is a zombie with no memory
        return 0.0


def _kb(path: Path, name: str) -> int:
    return int(path.read_text().partition(name)[2].split()[0])
