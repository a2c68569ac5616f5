"""The output of a job: written to a staging folder with a journal, and renamed to its final name when complete."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from likewise.batch import quarantine
from likewise.batch.chunk_log import rows_kept
from likewise.batch.formats import RowSource, SealedWriter, Writer, load
from likewise.batch.inputs import Input
from likewise.batch.job import ScoreJob
from likewise.batch.journal import Journal, JournalState, sync
from likewise.batch.layout import MANIFEST, QUARANTINE, Layout, remove, sync_folder, write_errors
from likewise.batch.scored import Scored
from likewise.batch.staging import SNAPSHOT, AppendFile, Claim, ResultLog, check, drop
from likewise.core.errors import LikewiseError, ModelFailed, OutputRefused
from likewise.core.private_files import open_file

PART_BYTES = 128 << 20  # a part file of a folder ends at the first chunk past this
BROKEN_AFTER = 100  # a model that fails on this many distinct rows, without any prediction, is considered broken
EARLIER = "distributed.json"  # in staging folders of jobs on Spark or Ray of an earlier version


class Output:
    """The output of one job. A context manager, in which `resume` is called first.

    If it exits without `commit`, all results so far are kept for the next run, and `done` is their number of rows.
    Nothing is kept if there are none or `discard` was called.  columns: of the input, as `writer` takes them.
    waiting: rows with results in the staging folder that are not in the output yet, because earlier ones are missing.
    """

    def __init__(self, job: ScoreJob, input_: Input) -> None:
        self.layout = Layout.of(job.output)
        self.format = self.layout.format(input_.format, job.options.format)
        self.layout.protect_inputs(file.path for file in input_.files if file.path)
        self._restart = job.options.restart
        self.staging = self.layout.staging
        self._folder = self.staging / "output"
        self._check_existing()
        quarantine.schema()  # fails now, not after hours, if pyarrow is missing
        self.columns = input_.described(self.format)
        self.writer: Writer = load(self.format).open_writer(cast(RowSource, self.columns), job.signature.outputs)
        self._sealed = self.writer if isinstance(self.writer, SealedWriter) else None
        self._part: AppendFile | None = None
        self._discard = self._resumed = False
        self._undo = ExitStack()
        self._claim = Claim(self.staging, self.layout.data)
        self.done = self.waiting = 0

    def __enter__(self) -> Output:
        try:
            with write_errors(self.layout.data):
                self._undo.callback(self._leave)  # registered first, because Ctrl-C may come between any two lines
                self._undo.callback(self._claim.release)
                self._claim.acquire()
                return self
        except BaseException:
            self._undo.close()
            raise

    def __exit__(self, *_: object) -> None:
        if self._part:
            self._part.close()
        self._undo.close()

    def resume(self, fingerprint: Mapping[str, object]) -> JournalState:
        """Resume an interrupted job with this fingerprint, or start; OutputRefused if it has another fingerprint."""
        with write_errors(self.layout.data):
            self._journal = Journal(self.staging, new=self._restart)
            self._undo.callback(self._journal.close)
            if not self._journal.resume(fingerprint):
                self._refuse_earlier_version()
                self._claim.clear()
                self._folder.mkdir()
                self._journal.begin(fingerprint, self._restart)
            state = self.state
            self._quarantine = AppendFile(self.staging / "quarantine.jsonl", state.quarantine)
            self._undo.callback(self._quarantine.close)
            self._results = ResultLog(self.staging, state)
            self._undo.callback(self._results.close)
            if self._sealed:
                self._sealed.include(state.kind)
            self._open_part(state)
            sync_folder(self.staging)
            self._resumed = True
            return state

    @property
    def state(self) -> JournalState:
        """What is complete."""
        return self._journal.state

    @property
    def prediction_type(self) -> str | None:
        """The name of the predictions' type, if the output's format has types; known when all rows are written."""
        return self._sealed.prediction_type if self._sealed else None

    def cached_results(self) -> Iterator[bytes]:
        """The lines that `RowResultCache` logged for the completed chunks."""
        return self._results.lines()

    def write(self, results: Iterable[Scored], seconds: Callable[[], float]) -> None:
        """Append the results of the next chunks, and record in the journal that they are complete.

        seconds: returns the duration of all runs.  Raises ModelFailed if the model has failed on the first hundred or
        more distinct rows, instead of quarantining the whole input; no results are kept then.
        """
        with write_errors(self.layout.data):
            self._claim.check()
            state = self.state
            for scored in results:
                state = state.including(scored.counts, scored.entries, seconds())
                self._require_working(state, scored)
                self._append(scored)
                if self._is_part_full():
                    state = self._record(state)
                    self._end_part()
            if state is not self.state:
                self._record(state)

    def _require_working(self, state: JournalState, scored: Scored) -> None:
        if state.answered or state.ok or state.refused < BROKEN_AFTER or (failure := scored.counts.failure) is None:
            return
        self.discard()  # a later run may have a model that works
        error = LikewiseError.from_dict(failure)
        raise ModelFailed(
            f"the model failed on each of the first {state.refused} distinct rows; the error of one of them: "
            f"{error.cause}",
            remedy=error.remedy,
        )

    def _append(self, scored: Scored) -> None:
        if scored.data:
            self._part = self._part or self._begin_part()
            self._part.stream.write(scored.data)
        if self._sealed:
            self._sealed.include(scored.counts.kind)
        self._quarantine.stream.writelines(map(quarantine.line, scored.entries))
        self._results.append(scored.cached)

    def commit(self, report: Mapping[str, object]) -> None:
        """Finish all files and publish them under their final names."""
        with write_errors(self.layout.data):
            if self.state.part < 0:
                self._part = self._begin_part()
            self._end_part()
            self._seal_parts()
            self._claim.check()
            with _new_file(self._folder / QUARANTINE) as stream:
                quarantine.write_parquet(self._quarantine.path, stream)
            with _new_file(self._folder / MANIFEST) as stream:
                stream.write(json.dumps(report, indent=2).encode() + b"\n")
            sync_folder(self._folder)
            self.layout.publish(self._folder, self._part_path(0).name)
        self._discard = True  # the staging folder is no longer needed

    def discard(self) -> None:
        """Keep none of the results, because they are not valid."""
        self._discard = True

    def drop_staging(self) -> None:
        """Remove the staging folder, which is no longer needed."""
        drop(self.staging)

    def _leave(self) -> None:
        done = 0
        with suppress(OSError, OutputRefused):
            check(self.staging)
            state = Journal(self.staging).state
            done = state.rows + rows_kept(self.staging, state.chunks) + self.waiting
        if (self._discard and self._resumed) or not (done or (self.staging / SNAPSHOT).exists()):
            drop(self.staging)
        elif self._resumed:
            self.done = done

    def _refuse_earlier_version(self) -> None:
        if (self.staging / EARLIER).exists() and not self._restart:
            cause = f"{self.staging} contains partial results of an earlier version"
            raise OutputRefused(cause, remedy="use --restart")

    def _check_existing(self) -> None:
        restart = self._restart
        with write_errors(self.layout.data):
            check(self.staging)
            if not restart:
                journal = Journal(self.staging)
                resumes = journal.exists and not self._published(journal)
                if not resumes and not (self.staging / EARLIER).exists():
                    drop(self.staging)  # left by a job that was killed before its start or after its end
                restart = journal.replaces and resumes
        self.layout.check_existing(restart)

    def _published(self, journal: Journal) -> bool:
        """Whether the job in the staging folder was killed just after it gave the output its final name."""
        if any(self._folder.glob("part-*")) or any(self.staging.glob("part-*")):
            return False
        return journal.state.part >= 0 or not self._folder.exists()

    def _record(self, state: JournalState) -> JournalState:
        """Write everything to the disk, and then the line of the journal; the line, which `state` becomes."""
        state = replace(
            state,
            part=_number(self._part.path) if self._part else state.part,
            length=self._part.commit() if self._part else state.length,
            quarantine=self._quarantine.commit(),
            answers=self._results.commit(),
            generation=self._results.generation,
            kind=self._sealed.open_kind if self._sealed else None,
        )
        self._journal.add(state)
        return state

    def _open_part(self, state: JournalState) -> None:
        """Reopen the part file that was being written, cut to the length in the journal; remove later ones."""
        for path in [*self._folder.iterdir(), *self.staging.glob("part-*")]:
            if path.suffix == ".new" or not path.name.startswith("part-") or _number(path) > state.part:
                remove(path)
        if state.part >= 0 and not (self._sealed and self._part_path(state.part).exists()):
            self._part = AppendFile(self._append_path(state.part), state.length)
            if self._is_part_full():
                self._end_part()

    def _is_part_full(self) -> bool:
        return self._part is not None and not self.layout.single and self._part.stream.tell() >= PART_BYTES

    def _begin_part(self) -> AppendFile:
        part = AppendFile(self._append_path(self.state.part + 1))
        self.writer.begin(part.stream)
        sync_folder(part.path.parent)
        return part

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
        for path in sorted(self.staging.glob("part-*.pieces")):
            part = self._part_path(_number(path))
            with open_file(path, "rb") as pieces, _new_file(part.with_suffix(".new")) as stream:
                self._sealed.seal(pieces, stream)
            part.with_suffix(".new").replace(part)
            sync_folder(self._folder)
            remove(path)

    def _part_path(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.{self.format}"

    def _append_path(self, number: int) -> Path:
        return self.staging / f"part-{number:05d}.pieces" if self._sealed else self._part_path(number)


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file, which is on the disk at the end."""
    with open_file(path, "wb") as stream:
        yield stream
        sync(stream)


def _number(path: Path) -> int:
    """The number of a part file, by its name."""
    return int(path.name.removeprefix("part-").partition(".")[0])
