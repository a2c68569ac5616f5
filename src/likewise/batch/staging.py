"""The folder where a job works: files that grow by a chunk at a time and can be cut back to what the journal has."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from likewise.batch import result_cache
from likewise.batch.journal import JournalState, sync
from likewise.batch.layout import remove, sync_folder
from likewise.core.errors import OutputRefused

HEAD = 33  # bytes of a line of answers before the answer


class Growing:
    """A file that only grows."""

    def __init__(self, path: Path, length: int = 0) -> None:
        """`length`: the bytes that count; what is behind them is cut off, and 0 makes the file anew."""
        self.path = path
        self.length = length
        try:
            self.stream: BinaryIO = path.open("r+b" if length else "wb")
            there = os.fstat(self.stream.fileno()).st_size
        except FileNotFoundError:
            there = 0
        if there < length:
            raise OutputRefused(
                f"{path} has {there} bytes, and {length} were written: what the job had done is damaged",
                remedy="--restart",
            )
        self.stream.truncate(length)
        self.stream.seek(length)

    def commit(self) -> int:
        """Put what was written on the disk; the length."""
        if (length := self.stream.tell()) != self.length:
            sync(self.stream)
            self.length = length
        return self.length

    def close(self) -> None:
        """The file, whatever becomes of it."""
        with suppress(OSError, ValueError):
            self.stream.close()


class AnswerLog:
    """The lines of `Answers`, in two generations: together they hold all that is still remembered."""

    def __init__(self, folder: Path, state: JournalState) -> None:
        self._folder = folder
        self.generation = state.generation
        self._file = Growing(self._path(self.generation), state.answers)
        self._weight = sum(result_cache.weight(line[HEAD:-1]) for line in self._lines(self.generation))

    def lines(self) -> Iterator[bytes]:
        """All that were written and may still be remembered, oldest first."""
        for generation in (self.generation - 1, self.generation):
            yield from self._lines(generation)

    def append(self, lines: list[bytes]) -> None:
        """Write them; a full generation makes room for the next."""
        if self._weight >= result_cache.LIMIT:
            self._file.close()
            remove(self._path(self.generation - 1))
            self.generation += 1
            self._file = Growing(self._path(self.generation))
            self._weight = 0
        self._file.stream.writelines(lines)
        self._weight += sum(result_cache.weight(line[HEAD:-1]) for line in lines)

    def commit(self) -> int:
        """As `Growing.commit`."""
        return self._file.commit()

    def close(self) -> None:
        """As `Growing.close`."""
        self._file.close()

    def _lines(self, generation: int) -> Iterator[bytes]:
        if self._path(generation).exists():
            with self._path(generation).open("rb") as stream:
                yield from stream

    def _path(self, generation: int) -> Path:
        return self._folder / f"answers-{generation}.jsonl"


class Claim:
    """A folder that one process at a time may work in."""

    def __init__(self, folder: Path, what: Path) -> None:
        """OutputRefused where another job has it. `what`: the output, for that error."""
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            remedy = "wait for it, or choose another OUTPUT"
            raise OutputRefused(f"another job is writing {what}", remedy=remedy) from None

    def clear(self) -> None:
        """Remove everything in it."""
        for entry in self._folder.iterdir():
            remove(entry)
        sync_folder(self._folder)

    def check(self) -> None:
        """FileNotFoundError where the folder is no longer the one that was claimed."""
        here, claimed = os.stat(self._folder), os.fstat(self._lock)
        if (here.st_dev, here.st_ino) != (claimed.st_dev, claimed.st_ino):
            raise FileNotFoundError(2, "the folder has gone")

    def release(self) -> None:
        """Let another process in."""
        os.close(self._lock)


def drop(folder: Path) -> None:
    """Remove a staging folder unless another job has it."""
    with suppress(OSError):
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(folder)
        finally:
            os.close(lock)
