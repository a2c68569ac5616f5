"""The results of one chunk, in the form that all runners give to the output."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from likewise.batch import quarantine
from likewise.batch.formats import Chunk, SealedWriter, Writer
from likewise.batch.journal import ChunkCounts
from likewise.batch.rows import split_results
from likewise.batch.scorer import Scorer
from likewise.core.engine import Work
from likewise.core.results import Failed
from likewise.core.signature import Signature


@dataclass(frozen=True, slots=True)
class Scored:
    """The results of one chunk.

    data: the rows with a prediction, as the writer of the output writes them. entries: the others, for the quarantine.
    cached: the lines that `RowResultCache` logged.
    """

    counts: ChunkCounts
    data: bytes
    entries: Sequence[quarantine.Entry]
    cached: list[bytes] = field(default_factory=list)


def score_chunk(
    scorer: Scorer,
    chunk: Chunk,
    work: Sequence[Work | Failed],
    writer: Writer,
    signature: Signature,
    on_run: Callable[[], None] = lambda: None,
) -> Scored:
    """Score the rows of a chunk.  work: the engine's work for each row, or its error.  on_run: see `Scorer.score`."""
    results = scorer.score(work, on_run)
    failures = {
        entry.key: result.error
        for entry, result in zip(work, results, strict=True)
        if isinstance(result, Failed) and isinstance(entry, Work)
    }
    predictions, errors = split_results(results, writer, signature.outputs)
    data = io.BytesIO()
    if predictions:
        writer.write(data, chunk, list(predictions), list(predictions.values()))
    counts = ChunkCounts(
        rows=len(chunk),
        ok=len(predictions),
        duplicates=scorer.duplicates,
        tokens=scorer.tokens,
        answered=scorer.answered,
        refused=len(failures),
        failure=next((error.as_dict() for error in failures.values()), None),
        engine=scorer.label,
        kind=writer.open_kind if isinstance(writer, SealedWriter) else None,
    )
    return Scored(counts, data.getvalue(), quarantine.entries(chunk, errors))
