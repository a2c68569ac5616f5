"""Memory that this process holds and does not need any more."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

MADV_DONTNEED = 4  # <bits/mman-linux.h>: of a file's unchanged pages, what is read again comes from the file again


def hand_back(path: Path) -> None:
    """Take the pages of `path`, mapped for reading only, out of this process's resident memory; Linux, else nothing.

    A runtime that copies weights into a layout of its own leaves the originals resident, though it never reads them
    again.  Source: madvise(2), proc_pid_maps(5).
    """
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for line in lines:
        span, rights, *_, name = (*line.split(maxsplit=5), "")[:6]
        if "w" not in rights and name == os.fspath(path.resolve()):
            start, end = (int(each, 16) for each in span.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)


def trim() -> None:
    """Give the system the heap's free pages: glibc keeps them, in every thread's arena; elsewhere nothing.

    Milliseconds, so for the end of work that lasts seconds.  Source: malloc_trim(3).
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
