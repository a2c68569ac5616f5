"""The results of the chunk that is being scored, kept every few seconds: an interrupted job resumes within it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from likewise.batch.journal import sync
from likewise.batch.layout import write_errors
from likewise.batch.result_cache import exact_json
from likewise.core.errors import LikewiseError
from likewise.core.private_files import open_file
from likewise.core.results import Failed, Ok, Result

NAME = "chunk.jsonl"
KEEP_S = 2.0  # at most this many seconds of finished runs are lost if the process is killed


class ChunkLog:
    """The file: a line per run of the engine, with the number of its chunk. A torn last line is ignored.

    results: of the current chunk, from earlier runs of the job, by the index of the distinct row.
    rows: of the current chunk that have a result on the disk, with the duplicates in the chunk.  seconds: that the
    engine took for these results.
    """

    def __init__(self, folder: Path, chunk: int, output: Path) -> None:
        """Open the file for the chunk with this number, without what it has of others.  output: for error messages."""
        self._chunk = chunk
        self._output = output
        with write_errors(output):
            self.results, self.rows, self.seconds, end = _read(folder / NAME, chunk)
            self._stream = open_file(folder / NAME, "r+b" if end else "wb")
            self._stream.truncate(end)
            self._stream.seek(end)
        self._pending: list[tuple[Sequence[int], Sequence[Result], int, float]] = []
        self._saved = time.monotonic()

    def add(self, indices: Sequence[int], results: Sequence[Result], rows: int, seconds: float) -> None:
        """Note the results of one run; raises OutputRefused.  rows: with duplicates.  seconds: that the run took."""
        self._pending.append((indices, results, rows, seconds))
        if time.monotonic() - self._saved >= KEEP_S:
            with write_errors(self._output):
                self._save()

    def begin(self, chunk: int) -> None:
        """Start the next chunk, because the one before is complete."""
        self._chunk = chunk
        self._pending, self.results, self.rows = [], {}, 0
        with write_errors(self._output):
            self._stream.seek(0)
            self._stream.truncate()
        self._saved = time.monotonic()

    def close(self) -> None:
        """Write what has not been written yet, ignoring errors, and close the file."""
        with suppress(OSError):
            self._save()
        with suppress(OSError):
            self._stream.close()

    def _save(self) -> None:
        kept = 0
        while self._pending:
            indices, results, rows, seconds = self._pending[0]
            encoded = [_encoded(result) for result in results]
            if None not in encoded:
                head = {"chunk": self._chunk, "indices": list(indices), "rows": rows, "seconds": seconds}
                self._stream.write(
                    json.dumps(head).encode()[:-1] + b', "results": [' + b",".join(filter(None, encoded)) + b"]}\n"
                )
                kept += rows
            del self._pending[0]
        sync(self._stream)
        self.rows += kept
        self._saved = time.monotonic()


def rows_kept(folder: Path, chunk: int) -> int:
    """The number of rows of the chunk with this number whose results the file in `folder` has."""
    return _read(folder / NAME, chunk)[1]


def _read(path: Path, chunk: int) -> tuple[dict[int, Result], int, float, int]:
    """The results of this chunk, their rows and seconds, and the bytes up to the end of the last complete line."""
    results: dict[int, Result] = {}
    rows, seconds, end = 0, 0.0, 0
    with suppress(FileNotFoundError, ValueError), open_file(path, "rb") as stream:
        for text in stream:
            line = json.loads(text)
            if not text.endswith(b"\n") or line["chunk"] != chunk:
                break
            if line["indices"][0] not in results:  # a signal while it was written may have written it twice
                rows, seconds = rows + line["rows"], seconds + line["seconds"]
            results.update(zip(line["indices"], map(_decoded, line["results"]), strict=True))
            end += len(text)
    return results, rows, seconds, end


def _encoded(result: Result) -> bytes | None:
    """The result as JSON; None if JSON does not represent it exactly."""
    if isinstance(result, Failed):
        return json.dumps({"error": result.error.as_dict()}).encode()
    text = exact_json(result.value)
    return None if text is None else b'{"ok": ' + text + b"}"


def _decoded(entry: Mapping[str, Any]) -> Result:
    return Ok(entry["ok"]) if "ok" in entry else Failed(LikewiseError.from_dict(entry["error"]))
