"""The memory that is available to this process, and returning what it no longer needs to the operating system."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from likewise.core.cores import control_groups

MADV_DONTNEED = 4  # <bits/mman-linux.h>: unmodified file pages are read from the file again if they are needed


def release_pages(path: Path) -> None:
    """Remove the read-only mapped pages of `path` from this process's resident memory. Does nothing outside Linux.

    A runtime that copies weights into its own layout leaves the original pages resident although it never reads them
    again.  Source: madvise(2), proc_pid_maps(5).
    """
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for line in lines:
        span, permissions, *_, name = (*line.split(maxsplit=5), "")[:6]
        if "w" not in permissions and name == os.fspath(path.resolve()):
            start, end = (int(each, 16) for each in span.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)


def trim() -> None:
    """Return the heap's free pages, which glibc keeps in each thread's arena, to the system. Does nothing elsewhere.

    Takes milliseconds, so call it after work that took seconds.  Source: malloc_trim(3).
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process and its children may still take: of the machine, and of its control groups.

    None outside Linux.  root: of the file system; other than `/` for tests.
    """
    found = [*_field(root / "proc/meminfo", "MemAvailable:"), *_left_in_groups(root)]
    return min(found) if found else None


def private_memory(pid: int) -> int:
    """Bytes that a copy of the process `pid` would need: without the files that both would map. 0 if unknown."""
    status = Path(f"/proc/{pid}/status")
    return sum((*_field(status, "RssAnon:"), *_field(status, "RssShmem:")))


def _field(file: Path, name: str) -> Iterator[int]:
    """A number of kB in a file of /proc, as bytes."""
    with suppress(OSError, ValueError):
        values = (line.split() for line in file.read_text().splitlines())
        yield from (int(words[1]) * 1024 for words in values if len(words) > 1 and words[0] == name)


def _left_in_groups(root: Path) -> Iterator[int]:
    """What is left of each limit; pages of files that can be dropped do not count as used."""
    for group in control_groups("memory", root):
        for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(OSError, ValueError):  # none: version 2 has "max"
                most, used = (int((group / name).read_text()) for name in (limit, usage))
                yield max(0, most - used + _inactive_files(group))


def _inactive_files(group: Path) -> int:
    with suppress(OSError, ValueError):
        values = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(values.get("total_inactive_file", values.get("inactive_file", 0)))
    return 0
