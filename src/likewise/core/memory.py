"""Returning memory that this process no longer needs to the operating system."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

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
