"""The tasks of a job on executors: write rows to chunk files, and score chunk files into results.

Every task returns one line of JSON per unit of work, and of several attempts at a task Spark uses one.  An error that a
retry would not fix is returned the same way.
"""

from __future__ import annotations

import io
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from likewise.batch import quarantine, reasons
from likewise.batch.columns import RowMaker
from likewise.batch.files import InputFile, read_errors, why_changed
from likewise.batch.formats import Chunk, RowSource, SealedWriter, Writer, load, open_file
from likewise.batch.header import Header
from likewise.batch.job import Types
from likewise.batch.rows import items_of, split_results
from likewise.batch.scorer import prepare
from likewise.batch.sources import INPUT_CHANGED_REMEDY
from likewise.core.arrow import records_of
from likewise.core.engine import Engine, Work
from likewise.core.errors import InputInvalid, LikewiseError, OutputRefused
from likewise.core.extras import need
from likewise.core.results import Failed
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.targets.spark import blob
from likewise.targets.spark.chunks import decode, encode
from likewise.targets.spark.local_times import local_batch, local_schema
from likewise.targets.spark.plan import Staging
from likewise.targets.spark.windows import InputColumns, pieces
from likewise.targets.spark.worker import engine_of, task_scorer

RESULT_SCHEMA = "told string"  # codespell:ignore told  # Spark's schema of what every task of a job returns


@dataclass(frozen=True, slots=True)
class TaskScorer:
    """What scoring a chunk needs in addition to the engine.

    types: the inferred types of the input's columns. output: the format of the rows.
    """

    staging: Staging
    source: InputColumns
    signature: Signature
    column: Mapping[str, str]
    types: Types
    output: str
    budget: int | None


def read_files(
    batches: Iterator[Any],
    folder: str | None,  # noqa: ARG001  passed to every task
    files: Sequence[InputFile],
    format_name: str,
    header: Header,
    rows: int,
    chunks: str,
) -> Iterator[Any]:
    """Write the chunks of each file whose number is in `batches`."""

    def cut(number: int) -> dict[str, object]:
        file = files[number]
        with read_errors(file):
            source = open_file(file, format_name, header)
            part = _write_chunks(source.chunks(rows), number, chunks)
            if changed := why_changed(file):
                raise InputInvalid(changed, remedy=INPUT_CHANGED_REMEDY)
        return part

    return _run_each(batches, cut)


def read_table(
    batches: Iterator[Any],
    folder: str | None,  # noqa: ARG001  passed to every task
    name: str,
    schema: Any,
    rows: int,
    chunks: str,
) -> Iterator[Any]:
    """Write the chunks of one partition of a table."""
    from pyspark import TaskContext

    context = TaskContext.get()
    number = context.partitionId() if context else 0
    yield _result_batch(lambda: _write_chunks(_table_chunks(batches, name, schema, rows), number, chunks))


def score_chunks(
    batches: Iterator[Any],
    folder: str | None,
    key: str,
    model: ModelSpec,
    plan: TaskScorer,
    chosen: Sequence[tuple[str, int]],
) -> Iterator[Any]:
    """Score the chunks whose indices in `chosen` (pairs of name and row offset) are in `batches`."""

    def score(number: int) -> dict[str, object]:
        name, row_offset = chosen[number]
        _require_folder(str(plan.staging.scored))
        result = plan.staging.scored / name
        if blob.header(result) is None:
            engine = engine_of(key, model, folder)
            _score(engine, plan, _read_chunk(plan.staging.chunks / name, row_offset), result)
        return {"chunk": name}

    return _run_each(batches, score)


def _run_each(batches: Iterator[Any], work: Callable[[int], dict[str, object]]) -> Iterator[Any]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            yield _result_batch(partial(work, number))


def _result_batch(work: Callable[[], dict[str, object]]) -> Any:
    """The result of `work`, or its LikewiseError, as a batch of RESULT_SCHEMA."""
    try:
        result = work()
    except LikewiseError as error:
        result = {"error": error.as_dict()}
    return need("pyarrow", extra="batch").RecordBatch.from_pydict({"told": [json.dumps(result)]})


def _write_chunks(chunks: Iterator[Chunk], number: int, folder: str) -> dict[str, object]:
    """Write chunks to a folder that is unique to this attempt of the task."""
    _require_folder(folder)
    name = f"{number:06d}-{uuid.uuid4().hex[:12]}"
    Path(folder, name).mkdir()
    sizes: list[int] = []
    for chunk in chunks:
        header, *bodies = encode(chunk)
        blob.write(Path(folder, name, f"{len(sizes):06d}"), header, *bodies)
        sizes.append(len(chunk))
    return {"part": number, "folder": name, "rows": sizes}


def _require_folder(folder: str) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputRefused(
            f"the executor on {os.uname().nodename}, which runs as user {os.geteuid()}, cannot write to {folder}",
            remedy="run the executors as the driver's user, to whom the folder is private, and choose an OUTPUT on "
            "storage that all of them share",
        )


def _table_chunks(batches: Iterator[Any], name: str, schema: Any, rows: int) -> Iterator[Chunk]:
    first = 1
    gathered: list[Any] = []
    for piece in (piece for batch in batches for piece in pieces(batch, rows)):
        if gathered and sum(len(each) for each in gathered) + len(piece) > rows:
            yield _chunk(name, first, gathered, schema)
            first, gathered = first + sum(len(each) for each in gathered), []
        gathered.append(piece)
    if gathered:
        yield _chunk(name, first, gathered, schema)


def _chunk(name: str, first: int, pieces: Sequence[Any], schema: Any) -> Chunk:
    """A chunk of the batches `pieces`; its row numbers are relative to the partition."""
    table = need("pyarrow", extra="batch").Table.from_batches(pieces).cast(schema)
    batch = table.combine_chunks().to_batches()[0]
    return Chunk(name, first, *records_of(batch), None, batch, 0)


def _read_chunk(path: Path, row_offset: int) -> Chunk:
    header, bodies = blob.read(path)
    chunk = decode(header, bodies[0], bodies[1])
    return replace(chunk, first=chunk.first + row_offset)


def _with_local_times(chunk: Chunk, zone: str | None) -> Chunk:
    """The rows of a table as the model takes them; the output keeps the table's own."""
    if zone is None or chunk.native is None:
        return chunk
    return replace(chunk, records=records_of(local_batch(chunk.native, zone))[0])


def _score(engine: Engine, plan: TaskScorer, chunk: Chunk, path: Path) -> None:
    """Score a chunk and write its counts, predictions and quarantined rows to `path`."""
    scorer = task_scorer(engine, budget=plan.budget)
    source = plan.source
    if source.zone is not None:
        source = replace(source, types=local_schema(source.types))
    maker = RowMaker(cast(RowSource, source), plan.signature, plan.column, plan.types)
    work = prepare(engine, items_of(_with_local_times(chunk, source.zone), maker))
    results = scorer.score(work)
    refused = {w.key for w, r in zip(work, results, strict=True) if isinstance(w, Work) and isinstance(r, Failed)}
    writer: Writer = load(plan.output).open_writer(cast(RowSource, plan.source), plan.signature.outputs)
    predictions, errors = split_results(results, writer, plan.signature.outputs)
    rows = io.BytesIO()
    if predictions:
        writer.write(rows, chunk, list(predictions), list(predictions.values()))
    entries = quarantine.entries(chunk, errors)
    counts = {
        "rows": len(chunk),
        "ok": len(predictions),
        "duplicates": scorer.duplicates,
        "tokens": scorer.tokens,
        "answered": scorer.answered,
        "refused": len(refused),
        "first_refused": next((e.as_dict() for i, e in errors.items() if isinstance(work[i], Work)), None),
        "engine": engine.spec.label,
        "reasons": reasons.add((), entries),
        "kind": writer.open_kind if isinstance(writer, SealedWriter) else None,
    }
    path.parent.mkdir(exist_ok=True)
    blob.write(path, counts, rows.getvalue(), b"".join(map(quarantine.line, entries)))
