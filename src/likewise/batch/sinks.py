"""Where the rows go: a staging folder that remembers what is done, and the final name only when all is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from likewise.batch import quarantine
from likewise.batch.formats import Chunk, RowSource, SealedWriter, Writer, load
from likewise.batch.journal import Counts, Journal, JournalState, replaces, rows_done, sync
from likewise.batch.layout import MANIFEST, QUARANTINE, Layout, refused, remove, sync_folder
from likewise.batch.rows import settled
from likewise.batch.staging import AnswerLog, Claim, Growing, drop
from likewise.core.errors import LikewiseError, OutputRefused
from likewise.core.results import Result
from likewise.core.signature import Signature

PART_BYTES = 128 << 20  # a part file of a folder ends at the first chunk past this


class Output:
    """The output of one job. A context, in which `resume` comes first.

    When it ends without a commit, what finished chunks have brought is kept for the next run; `done` then says how many
    rows that are.  Nothing is kept where no chunk is finished, or where `void` was called.
    """

    def __init__(
        self, output: Path, source: RowSource, signature: Signature, format_name: str | None, restart: bool
    ) -> None:
        self.layout = Layout.of(output)
        self.format = self.layout.format(source.format, format_name)
        self.layout.refuse_loss(file.path for file in source.files if file.path)
        self._restart = restart
        self._staging = self.layout.staging
        self._folder = self._staging / "output"
        self._refuse_existing()
        quarantine.schema()  # what it needs is missing now and not after hours
        self._outputs = signature.outputs
        self._writer: Writer = load(self.format).open_writer(source, signature.outputs)
        self._sealed = isinstance(self._writer, SealedWriter)
        self._part: Growing | None = None
        self._void = self._resumed = False
        self.done = 0

    def __enter__(self) -> Output:
        with refused(self.layout.data), ExitStack() as undo:
            undo.callback(self._leave)  # first of all: Ctrl-C may come between any two lines
            self._claim = Claim(self._staging, self.layout.data)
            undo.callback(self._claim.release)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        if self._part:
            self._part.close()
        self._undo.close()

    def resume(self, fingerprint: Mapping[str, object]) -> JournalState:
        """Go on where a job with this fingerprint was stopped, or begin; OutputRefused where another one was."""
        with refused(self.layout.data):
            self._journal = Journal(self._staging)
            self._undo.callback(self._journal.close)
            if self._restart or not self._journal.resume(fingerprint):
                self._claim.clear()
                self._folder.mkdir()
                self._journal.begin(fingerprint, self._restart)
            state = self._journal.state
            self._quarantine = Growing(self._staging / "quarantine.jsonl", state.quarantine)
            self._undo.callback(self._quarantine.close)
            self._answers = AnswerLog(self._staging, state)
            self._undo.callback(self._answers.close)
            self._open_part(state)
            sync_folder(self._staging)
            self._resumed = True
            return state

    def remembered(self) -> Iterator[bytes]:
        """Lines of `Answers` that the finished chunks wrote."""
        return self._answers.lines()

    def settled(self, results: Sequence[Result]) -> tuple[dict[int, object], dict[int, LikewiseError]]:
        """By index: predictions as the output's format holds them, and the errors of all other rows."""
        return settled(results, self._writer, self._outputs)

    def write(
        self,
        chunk: Chunk,
        kept: Sequence[int],
        predictions: Sequence[object],
        errors: Mapping[int, LikewiseError],
        answers: list[bytes],
        counts: Counts,
    ) -> None:
        """The rows `kept` of a chunk with their fitted predictions, those that have an error instead, and lines of
        `Answers`; then the chunk counts as done, and `counts` as what is done."""
        with refused(self.layout.data):
            self._claim.check()
            if kept:
                self._part = self._part or self._begin_part()
                self._writer.write(self._part.stream, chunk, kept, predictions)
            self._quarantine.stream.writelines(quarantine.lines(chunk, errors))
            self._answers.append(answers)
            self._journal.add(self._state(counts))
            self._end_full_part()

    def commit(self, report: Mapping[str, object]) -> None:
        """Everything under its final name, on the disk."""
        with refused(self.layout.data):
            if self._journal.state.part < 0:
                self._part = self._begin_part()
            self._end_part()
            publish(self.layout, self._folder, self._part_path(0).name, self._quarantine.path, report)
        self._void = True  # nothing in the staging folder is needed any more

    def void(self) -> None:
        """Keep nothing: what is done is worth nothing."""
        self._void = True

    def _leave(self) -> None:
        done = 0
        with suppress(OSError):
            done = rows_done(self._staging)
        if self._void or not done:
            drop(self._staging)
        elif self._resumed:
            self.done = done

    def _refuse_existing(self) -> None:
        try:
            self.layout.refuse_existing(self._restart or replaces(self._staging))
        except OutputRefused:
            if not any(self._folder.glob("part-*")) and not any(self._staging.glob("part-*")):
                drop(self._staging)  # of a job that was killed when its output had been put in place
            raise

    def _state(self, counts: Counts) -> JournalState:
        """Everything on the disk, and what to write into the journal then."""
        before = self._journal.state
        return JournalState(
            **asdict(counts),
            chunks=before.chunks + 1,
            part=_number(self._part.path) if self._part else before.part,
            length=self._part.commit() if self._part else before.length,
            quarantine=self._quarantine.commit(),
            answers=self._answers.commit(),
            generation=self._answers.generation,
        )

    def _open_part(self, state: JournalState) -> None:
        """The part that was being written, as the journal knows it."""
        for path in [*self._folder.iterdir(), *self._staging.glob("part-*")]:
            if path.suffix == ".new" or not path.name.startswith("part-") or _number(path) > state.part:
                remove(path)
        if state.part >= 0 and not (self._sealed and self._part_path(state.part).exists()):
            self._part = Growing(self._growing_path(state.part), state.length)
            self._end_full_part()

    def _begin_part(self) -> Growing:
        part = Growing(self._growing_path(self._journal.state.part + 1))
        self._writer.begin(part.stream)
        sync_folder(part.path.parent)
        return part

    def _end_full_part(self) -> None:
        if self._part and not self.layout.single and self._part.length >= PART_BYTES:
            self._end_part()

    def _end_part(self) -> None:
        """The part under its name; it may be done again at any time before that."""
        if (part := self._part) is None:
            return
        part.commit()
        part.close()
        self._part = None
        if isinstance(self._writer, SealedWriter):
            with part.path.open("rb") as pieces:
                seal(self._writer, pieces, self._part_path(_number(part.path)))
            sync_folder(self._folder)
            remove(part.path)

    def _part_path(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.{self.format}"

    def _growing_path(self, number: int) -> Path:
        return self._staging / f"part-{number:05d}.pieces" if self._sealed else self._part_path(number)


def seal(writer: SealedWriter, pieces: BinaryIO, path: Path) -> None:
    """The part file of `pieces`, under its name only when whole."""
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as stream:
        writer.seal(pieces, stream)
        sync(stream)
    fresh.replace(path)


def publish(layout: Layout, folder: Path, part: str, lines: Path, report: Mapping[str, object]) -> None:
    """The parts in `folder` and what belongs to them, under their final names.

    part: the name of the first. lines: of the quarantine. report: what the manifest says.
    """
    with (folder / QUARANTINE).open("wb") as stream:
        quarantine.write_parquet(lines, stream)
        sync(stream)
    with (folder / MANIFEST).open("wb") as stream:
        stream.write(json.dumps(report, indent=2).encode() + b"\n")
        sync(stream)
    sync_folder(folder)
    layout.publish(folder, part)


def _number(path: Path) -> int:
    return int(path.name.removeprefix("part-").partition(".")[0])
