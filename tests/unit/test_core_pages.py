"""Releasing the pages of a mapped file frees memory and keeps its contents."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from likewise.core.memory import release_pages

SIZE = 8 << 20


def resident_kb(path: Path) -> int:
    """Resident kilobytes of all mappings of `path` in this process."""
    total, matches = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            matches = line.endswith(str(path))
        elif matches and words[0] == "Rss:":
            total += int(words[1])
    return total


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_read_pages_are_released_and_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "weights with a space.bin"
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) == 0  # reads every page; each starts with 0
        assert resident_kb(path) == SIZE // 1024
        release_pages(path)
        assert resident_kb(path) == 0
        assert mapped[255] == 255
        assert mapped[SIZE - 1] == 255


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_writable_pages_are_not_released(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(SIZE))
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[5] = 7
        release_pages(path)
        assert mapped[5] == 7


def test_unmapped_file_is_ignored(tmp_path: Path) -> None:
    release_pages(tmp_path / "none.bin")


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_free_heap_pages_are_returned_to_the_system() -> None:
    """In a separate process: many small blocks are freed below one that remains, so that the heap cannot shrink."""
    code = """
from likewise.core.memory import trim

def resident():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * 4096

blocks = [bytes(1000) for _ in range(100_000)]
last = bytes(1000)
del blocks
before = resident()
trim()
print(before - resident())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 20_000_000
