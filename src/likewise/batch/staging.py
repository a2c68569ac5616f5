"""The staging folder of a job: its lock, and files that grow chunk by chunk and can be truncated when it resumes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from likewise.batch import result_cache
from likewise.batch.journal import NAME as JOURNAL
from likewise.batch.journal import JournalState, sync
from likewise.batch.layout import remove, sync_folder
from likewise.core.errors import OutputRefused
from likewise.core.private_files import make_private, open_file, open_folder

REMEDY = "delete it and run the command again, or choose another OUTPUT"
SNAPSHOT = "snapshot.json"  # the chunks of a job on several machines
HEAD = 33  # bytes before the prediction in a line of the result log: 32 hex digits and a space


class AppendFile:
    """A file that is only appended to."""

    def __init__(self, path: Path, length: int = 0) -> None:
        """Open the file, truncated to its first `length` bytes; 0 creates it.

        Raises OutputRefused if the file is shorter.
        """
        self.path = path
        self.length = length
        try:
            self.stream: BinaryIO = open_file(path, "r+b" if length else "wb")
            size = os.fstat(self.stream.fileno()).st_size
        except FileNotFoundError:
            size = 0
        if size < length:
            raise OutputRefused(
                f"{path} has {size} bytes instead of {length}: the results of the interrupted job are damaged",
                remedy="use --restart to start the job again from the beginning",
            )
        self.stream.truncate(length)
        self.stream.seek(length)

    def commit(self) -> int:
        """Write everything to the disk and return the file's length."""
        if (length := self.stream.tell()) != self.length:
            sync(self.stream)
            self.length = length
        return self.length

    def close(self) -> None:
        """Close the file, ignoring errors."""
        with suppress(OSError, ValueError):
            self.stream.close()


class ResultLog:
    """The lines that `RowResultCache` logs, in two files (generations) that together contain all cached results."""

    def __init__(self, folder: Path, state: JournalState) -> None:
        self._folder = folder
        self.generation = state.generation
        self._file = AppendFile(self._path(self.generation), state.answers)
        self._weight = sum(result_cache.weight(line[HEAD:-1]) for line in self._lines(self.generation))

    def lines(self) -> Iterator[bytes]:
        """All lines that may still be in the cache, oldest first."""
        for generation in (self.generation - 1, self.generation):
            yield from self._lines(generation)

    def append(self, lines: list[bytes]) -> None:
        """Append lines. If the current generation is full, start the next one and delete the one before."""
        if self._weight >= result_cache.LIMIT:
            self._file.close()
            remove(self._path(self.generation - 1))
            self.generation += 1
            self._file = AppendFile(self._path(self.generation))
            self._weight = 0
        self._file.stream.writelines(lines)
        self._weight += sum(result_cache.weight(line[HEAD:-1]) for line in lines)

    def commit(self) -> int:
        """Write everything to the disk and return the length of the current file."""
        return self._file.commit()

    def close(self) -> None:
        """Close the current file, ignoring errors."""
        self._file.close()

    def _lines(self, generation: int) -> Iterator[bytes]:
        with suppress(FileNotFoundError), open_file(self._path(generation), "rb") as stream:
            yield from stream

    def _path(self, generation: int) -> Path:
        return self._folder / f"answers-{generation}.jsonl"


class Claim:
    """An exclusive lock on a staging folder, so that each output has only one job at a time."""

    def __init__(self, folder: Path, output: Path) -> None:
        """output: for error messages."""
        self._folder = folder
        self._output = output
        self._lock: int | None = None

    def acquire(self) -> None:
        """Create and lock the folder. If it is interrupted, call `release`.

        OutputRefused if another job has locked it, or another user may have written to it.
        """
        with suppress(FileExistsError):
            self._folder.mkdir(mode=0o700)
        self._lock = open_folder(self._folder, remedy=REMEDY)
        make_private(self._lock)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "wait until it has finished, or choose another OUTPUT"
            raise OutputRefused(f"another job is writing {self._output}", remedy=remedy) from None

    def clear(self) -> None:
        """Remove the content of the folder: the journal first, so that no run resumes what is left of it."""
        _remove_journal(self._folder)
        for entry in self._folder.iterdir():
            remove(entry)
        sync_folder(self._folder)

    def check(self) -> None:
        """FileNotFoundError if the folder is no longer the one that was locked."""
        current, locked = os.lstat(self._folder), os.fstat(cast(int, self._lock))
        if (current.st_dev, current.st_ino) != (locked.st_dev, locked.st_ino):
            raise FileNotFoundError(2, "the folder no longer exists")

    def release(self) -> None:
        """Release the lock, if it was acquired."""
        if self._lock is not None:
            os.close(self._lock)


def check(folder: Path) -> None:
    """OutputRefused if the staging folder exists and is a link, or another user may have written to it."""
    with suppress(FileNotFoundError, NotADirectoryError):
        os.close(open_folder(folder, remedy=REMEDY))


def drop(folder: Path) -> None:
    """Remove a staging folder unless another job has locked it, or another user may have written to it."""
    with suppress(OSError, OutputRefused):
        lock = open_folder(folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_journal(folder)
            with suppress(OSError):  # a task that is not cancelled yet may add a file meanwhile
                remove(folder)
            remove(folder)
        finally:
            os.close(lock)


def _remove_journal(folder: Path) -> None:
    (folder / JOURNAL).unlink(missing_ok=True)
    sync_folder(folder)
