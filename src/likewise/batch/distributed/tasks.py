"""The tasks of a job: cut a file of the input into chunk files, and score a chunk file into a result.

Any number of workers may attempt a task; each result is a file that is complete or missing.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from likewise.batch.columns import RowMaker
from likewise.batch.distributed import blob
from likewise.batch.distributed.chunks import decode, encode
from likewise.batch.distributed.local_times import local_batch, local_schema
from likewise.batch.distributed.staging import Staging
from likewise.batch.files import InputFile, read_errors, why_changed
from likewise.batch.formats import Chunk, RowSource, Writer, load, open_file
from likewise.batch.header import Header
from likewise.batch.inputs import InputColumns
from likewise.batch.job import Types
from likewise.batch.layout import write_errors
from likewise.batch.result_cache import RowResultCache
from likewise.batch.rows import items_of
from likewise.batch.scored import Scored, score_chunk
from likewise.batch.scorer import Scorer, prepare
from likewise.batch.sources import INPUT_CHANGED_REMEDY
from likewise.core.arrow import records_of
from likewise.core.engine import Engine
from likewise.core.errors import InputInvalid, OutputRefused
from likewise.core.items import NO_PARAMS, Params
from likewise.core.signature import Signature
from likewise.telemetry.jobs import chunk_span

CACHE_BYTES = 16 << 20  # size of the result cache of each engine

_caches: dict[int, RowResultCache] = {}  # workers keep their engines, so ids stay unique


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """What scoring a chunk needs in addition to the engine.

    types: the inferred types of the input's columns. output: the format of the rows. traceparent: of the job's span.
    params: of each row.
    """

    staging: Staging
    source: InputColumns
    signature: Signature
    column: Mapping[str, str]
    types: Types
    output: str
    budget: int | None
    traceparent: str = ""
    params: Params = NO_PARAMS


def cut_file(
    number: int, files: Sequence[InputFile], format_name: str, header: Header, rows: int, chunks: str
) -> dict[str, object]:
    """Write the chunks of the file with this number, of at most `rows` rows, below the folder `chunks`."""
    file = files[number]
    with read_errors(file):
        source = open_file(file, format_name, header)
        part = write_chunks(source.chunks(rows), number, chunks)
        if changed := why_changed(file):
            raise InputInvalid(changed, remedy=INPUT_CHANGED_REMEDY)
    return part


def score_file(engine: Callable[[], Engine], plan: ScorePlan, name: str, row_offset: int) -> dict[str, object]:
    """Score the chunk `name`, unless it has a result.  engine: opens it, or returns the open one."""
    require_folder(str(plan.staging.scored))
    if plan.staging.counts(name) is None:
        opened = engine()
        with chunk_span(plan.traceparent, flush=True) as span:
            scored = _scored(opened, plan, _read_chunk(plan.staging.chunks / name, row_offset))
            span.attributes |= scored.counts.traced
        with write_errors(plan.staging.folder):
            plan.staging.save(name, scored)
    return {"chunk": name}


def task_scorer(engine: Engine, *, budget: int | None = None) -> Scorer:
    """A scorer for one task, which shares the result cache of earlier tasks in this process."""
    answers = _caches.setdefault(id(engine), RowResultCache(CACHE_BYTES))
    return Scorer(engine, budget=budget, cache=answers)


def write_chunks(chunks: Iterator[Chunk], number: int, folder: str) -> dict[str, object]:
    """Write chunks to a folder that is unique to this attempt of the task."""
    require_folder(folder)
    name = f"{number:06d}-{uuid.uuid4().hex[:12]}"
    Path(folder, name).mkdir()
    sizes: list[int] = []
    for chunk in chunks:
        header, *bodies = encode(chunk)
        blob.write(Path(folder, name, f"{len(sizes):06d}"), header, *bodies)
        sizes.append(len(chunk))
    return {"part": number, "folder": name, "rows": sizes}


def require_folder(folder: str) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputRefused(
            f"the worker on {os.uname().nodename}, which runs as user {os.geteuid()}, cannot write to {folder}",
            remedy="run the workers as the driver's user, to whom the folder is private, and choose an OUTPUT on "
            "storage that all of them share",
        )


def _read_chunk(path: Path, row_offset: int) -> Chunk:
    try:
        header, bodies = blob.read(path)
    except (blob.CorruptError, FileNotFoundError) as error:
        raise OutputRefused(
            f"a part of the input, {path}, is damaged: {error.strerror}", remedy="use --restart"
        ) from error
    chunk = decode(header, bodies[0], bodies[1])
    return replace(chunk, first=chunk.first + row_offset)


def _with_local_times(chunk: Chunk, zone: str | None) -> Chunk:
    """The rows of a table as the model takes them; the output keeps the table's own."""
    if zone is None or chunk.native is None:
        return chunk
    return replace(chunk, records=records_of(local_batch(chunk.native, zone))[0])


def _scored(engine: Engine, plan: ScorePlan, chunk: Chunk) -> Scored:
    scorer = task_scorer(engine, budget=plan.budget)
    source = plan.source
    if source.zone is not None:
        source = replace(source, types=local_schema(source.types))
    maker = RowMaker(cast(RowSource, source), plan.signature, plan.column, plan.types, plan.params)
    work = prepare(engine, items_of(_with_local_times(chunk, source.zone), maker))
    writer: Writer = load(plan.output).open_writer(cast(RowSource, plan.source), plan.signature.outputs)
    return score_chunk(scorer, chunk, work, writer, plan.signature)
