"""The output of a job: written to a staging folder with a journal, and renamed to its final name when complete."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from likewise.batch import quarantine
from likewise.batch.chunk_log import ChunkLog, rows_kept
from likewise.batch.formats import Chunk, RowSource, SealedWriter, Writer, load
from likewise.batch.journal import Counts, Journal, JournalState, last_state, replaces, sync
from likewise.batch.layout import MANIFEST, QUARANTINE, Layout, remove, sync_folder, write_errors
from likewise.batch.rows import split_results
from likewise.batch.staging import AppendFile, Claim, ResultLog, check, drop
from likewise.core.errors import LikewiseError, OutputRefused
from likewise.core.private_files import open_file
from likewise.core.results import Result
from likewise.core.signature import Signature

PART_BYTES = 128 << 20  # a part file of a folder ends at the first chunk past this


class Output:
    """The output of one job. A context manager, in which `resume` is called first.

    If it exits without `commit`, all results so far are kept for the next run, and `done` is their number of rows.
    Nothing is kept if there are none or `discard` was called.  chunk_log: those of the chunk that is being scored.
    """

    def __init__(
        self, output: Path, source: RowSource, signature: Signature, format_name: str | None, restart: bool
    ) -> None:
        self.layout = Layout.of(output)
        self.format = self.layout.format(source.format, format_name)
        self.layout.protect_inputs(file.path for file in source.files if file.path)
        self._restart = restart
        self._staging = self.layout.staging
        self._folder = self._staging / "output"
        self._check_existing()
        quarantine.schema()  # fails now, not after hours, if pyarrow is missing
        self._outputs = signature.outputs
        self._writer: Writer = load(self.format).open_writer(source, signature.outputs)
        self._sealed = self._writer if isinstance(self._writer, SealedWriter) else None
        self._part: AppendFile | None = None
        self._discard = self._resumed = False
        self.done = 0

    def __enter__(self) -> Output:
        with write_errors(self.layout.data), ExitStack() as undo:
            undo.callback(self._leave)  # registered first, because Ctrl-C may come between any two lines
            self._claim = Claim(self._staging, self.layout.data)
            undo.callback(self._claim.release)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        if self._part:
            self._part.close()
        self._undo.close()

    def resume(self, fingerprint: Mapping[str, object]) -> JournalState:
        """Resume an interrupted job with this fingerprint, or start; OutputRefused if it has another fingerprint."""
        with write_errors(self.layout.data):
            self._journal = Journal(self._staging)
            self._undo.callback(self._journal.close)
            if self._restart or not self._journal.resume(fingerprint):
                self._claim.clear()
                self._folder.mkdir()
                self._journal.begin(fingerprint, self._restart)
            state = self._journal.state
            self._quarantine = AppendFile(self._staging / "quarantine.jsonl", state.quarantine)
            self._undo.callback(self._quarantine.close)
            self._results = ResultLog(self._staging, state)
            self._undo.callback(self._results.close)
            self.chunk_log = ChunkLog(self._staging, state.chunks, self.layout.data)
            self._undo.callback(self.chunk_log.close)
            if self._sealed:
                self._sealed.include(state.kind)
            self._open_part(state)
            sync_folder(self._staging)
            self._resumed = True
            return state

    @property
    def prediction_type(self) -> str | None:
        """The name of the predictions' type, if the output's format has types; known when all rows are written."""
        return self._sealed.prediction_type if self._sealed else None

    def cached_results(self) -> Iterator[bytes]:
        """The lines that `RowResultCache` logged for the completed chunks."""
        return self._results.lines()

    def split_results(self, results: Sequence[Result]) -> tuple[dict[int, object], dict[int, LikewiseError]]:
        """Predictions in the form that the output's format takes, and the errors of all other rows, by row index."""
        return split_results(results, self._writer, self._outputs)

    def write(
        self,
        chunk: Chunk,
        kept: Sequence[int],
        predictions: Sequence[object],
        entries: Sequence[quarantine.Entry],
        cache_lines: list[bytes],
        counts: Counts,
    ) -> None:
        """Write a chunk and record it in the journal as complete.

        kept: indices of the rows with predictions. entries: of the other rows. cache_lines: logged by `RowResultCache`
        for this chunk. counts: of the job so far, including this chunk.
        """
        with write_errors(self.layout.data):
            self._claim.check()
            if kept:
                self._part = self._part or self._begin_part()
                self._writer.write(self._part.stream, chunk, kept, predictions)
            self._quarantine.stream.writelines(map(quarantine.line, entries))
            self._results.append(cache_lines)
            self._journal.add(self._state(counts))
            self.chunk_log.begin(self._journal.state.chunks)
            self._end_full_part()

    def commit(self, report: Mapping[str, object]) -> None:
        """Finish all files and publish them under their final names."""
        with write_errors(self.layout.data):
            if self._journal.state.part < 0:
                self._part = self._begin_part()
            self._end_part()
            self._seal_parts()
            self._claim.check()
            publish(self.layout, self._folder, self._part_path(0).name, self._quarantine.path, report)
        self._discard = True  # the staging folder is no longer needed

    def discard(self) -> None:
        """Keep none of the results, because they are not valid."""
        self._discard = True

    def drop_staging(self) -> None:
        """Remove the staging folder, which is no longer needed."""
        drop(self._staging)

    def _leave(self) -> None:
        done = 0
        with suppress(OSError, OutputRefused):
            check(self._staging)
            state = last_state(self._staging)
            done = state.rows + rows_kept(self._staging, state.chunks)
        if self._discard or not done:
            drop(self._staging)
        elif self._resumed:
            self.done = done

    def _check_existing(self) -> None:
        with write_errors(self.layout.data):
            check(self._staging)
            restart = self._restart or replaces(self._staging)
        try:
            self.layout.check_existing(restart)
        except OutputRefused:
            if not any(self._folder.glob("part-*")) and not any(self._staging.glob("part-*")):
                drop(self._staging)  # left by a job that was killed just after it published its output
            raise

    def _state(self, counts: Counts) -> JournalState:
        """Write everything to the disk and return the journal entry that describes it."""
        before = self._journal.state
        return JournalState(
            **asdict(counts),
            chunks=before.chunks + 1,
            part=_number(self._part.path) if self._part else before.part,
            length=self._part.commit() if self._part else before.length,
            quarantine=self._quarantine.commit(),
            answers=self._results.commit(),
            generation=self._results.generation,
            kind=self._sealed.open_kind if self._sealed else None,
        )

    def _open_part(self, state: JournalState) -> None:
        """Reopen the part file that was being written, cut to the length in the journal; remove later ones."""
        for path in [*self._folder.iterdir(), *self._staging.glob("part-*")]:
            if path.suffix == ".new" or not path.name.startswith("part-") or _number(path) > state.part:
                remove(path)
        if state.part >= 0 and not (self._sealed and self._part_path(state.part).exists()):
            self._part = AppendFile(self._append_path(state.part), state.length)
            self._end_full_part()

    def _begin_part(self) -> AppendFile:
        part = AppendFile(self._append_path(self._journal.state.part + 1))
        self._writer.begin(part.stream)
        sync_folder(part.path.parent)
        return part

    def _end_full_part(self) -> None:
        if self._part and not self.layout.single and self._part.length >= PART_BYTES:
            self._end_part()

    def _end_part(self) -> None:
        """Close the current part, and seal it unless that needs the predictions of later parts."""
        if (part := self._part) is None:
            return
        part.commit()
        part.close()
        self._part = None
        if self._sealed and self._sealed.open_kind is None:
            self._seal_parts()

    def _seal_parts(self) -> None:
        """Give all closed parts their final format and name; can be repeated if it is interrupted."""
        if self._sealed is None:
            return
        for path in sorted(self._staging.glob("part-*.pieces")):
            with open_file(path, "rb") as pieces:
                seal(self._sealed, pieces, self._part_path(_number(path)))
            sync_folder(self._folder)
            remove(path)

    def _part_path(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.{self.format}"

    def _append_path(self, number: int) -> Path:
        return self._staging / f"part-{number:05d}.pieces" if self._sealed else self._part_path(number)


def seal(writer: SealedWriter, pieces: BinaryIO, path: Path) -> None:
    """Convert `pieces` to the part file `path`, which appears only when it is complete."""
    new = path.with_suffix(".new")
    with open_file(new, "wb") as stream:
        writer.seal(pieces, stream)
        sync(stream)
    new.replace(path)


def publish(layout: Layout, folder: Path, part: str, lines: Path, report: Mapping[str, object]) -> None:
    """Add quarantine and manifest to the part files in `folder`, and publish all of them under their final names.

    part: name of the first part file. lines: file with the quarantine's JSON lines. report: content of the manifest.
    """
    with open_file(folder / QUARANTINE, "wb") as stream:
        quarantine.write_parquet(lines, stream)
        sync(stream)
    with open_file(folder / MANIFEST, "wb") as stream:
        stream.write(json.dumps(report, indent=2).encode() + b"\n")
        sync(stream)
    sync_folder(folder)
    layout.publish(folder, part)


def _number(path: Path) -> int:
    """The number of a part file, by its name."""
    return int(path.name.removeprefix("part-").partition(".")[0])
