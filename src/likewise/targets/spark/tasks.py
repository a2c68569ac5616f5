"""The tasks of a job on executors.

Every task returns one line of JSON per unit of work, and of several attempts at a task Spark uses one.  An error that a
retry would not fix is returned the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from likewise.batch.distributed.tasks import ScorePlan, cut_file, score_file, write_chunks
from likewise.batch.formats import Chunk
from likewise.core.arrow import records_of
from likewise.core.errors import LikewiseError
from likewise.core.extras import need
from likewise.core.spec import ModelSpec
from likewise.targets.spark.windows import pieces
from likewise.targets.spark.worker import engine_of

RESULT_SCHEMA = "told string"  # codespell:ignore told  # Spark's schema of what every task of a job returns


def read_files(
    batches: Iterator[Any],
    folder: str | None,  # noqa: ARG001  passed to every task
    *arguments: Any,
) -> Iterator[Any]:
    """Write the chunks of each file whose number is in `batches`; arguments: of `cut_file`."""
    return _run_each(batches, lambda number: cut_file(number, *arguments))


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
    yield _result_batch(lambda: write_chunks(_table_chunks(batches, name, schema, rows), number, chunks))


def score_chunks(
    batches: Iterator[Any],
    folder: str | None,
    key: str,
    model: ModelSpec,
    plan: ScorePlan,
    chosen: Sequence[tuple[str, int]],
) -> Iterator[Any]:
    """Score the chunks whose indices in `chosen` (pairs of name and row offset) are in `batches`."""
    engine = partial(engine_of, key, model, folder)
    return _run_each(batches, lambda number: score_file(engine, plan, *chosen[number]))


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
