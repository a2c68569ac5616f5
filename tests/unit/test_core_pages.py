"""Pages of a mapped file are handed back, and its bytes stay what they are."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from likewise.core.memory import release_pages

SIZE = 8 << 20


def resident_kb(path: Path) -> int:
    """Of all mappings of `path` in this process."""
    found, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            ours = line.endswith(str(path))
        elif ours and words[0] == "Rss:":
            found += int(words[1])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_pages_that_were_read_are_handed_back_and_come_again(tmp_path: Path) -> None:
    path = tmp_path / "weights with a space.bin"
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) == 0  # touches every page; each begins with 0
        assert resident_kb(path) == SIZE // 1024
        release_pages(path)
        assert resident_kb(path) == 0
        assert mapped[255] == 255
        assert mapped[SIZE - 1] == 255


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_pages_that_may_have_changed_are_left(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(SIZE))
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[5] = 7
        release_pages(path)
        assert mapped[5] == 7


def test_a_file_that_is_not_mapped_is_no_matter(tmp_path: Path) -> None:
    release_pages(tmp_path / "none.bin")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_free_pages_of_the_heap_are_given_to_the_system() -> None:
    """In a process of its own: many small blocks are freed below one that stays, so that the heap cannot shrink."""
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
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(said.stdout) > 20_000_000
