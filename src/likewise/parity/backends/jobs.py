"""Batch jobs as backends: the golden set is written to a file of the same format and types, and scored."""

from __future__ import annotations

import json

from likewise import api
from likewise.batch import ScoreOptions
from likewise.batch.formats import PREDICTIONS
from likewise.batch.layout import Layout
from likewise.core.errors import WrongUsage
from likewise.core.extras import need
from likewise.core.scratch import scratch_folder
from likewise.parity.batches import ROWS
from likewise.parity.compare import RefusedRow
from likewise.parity.comparison import Comparison
from likewise.parity.golden import Golden
from likewise.targets.http_client import Served

WINDOWS = (64, 256, 1024)


def refuse(golden: Golden, where: str) -> None:
    """Raise WrongUsage if a job cannot take the golden set."""
    reason = f"{golden.source} is not a table" if golden.file is None else ""
    if len(golden.params) > 1:
        reason = f"{golden.source} has rows with different params"
    if reason:
        raise WrongUsage(f"{reason}, which batch jobs do not support", remedy=f"remove --against {where}")


def predict(runner: str, master: str | None, comparison: Comparison) -> None:
    """The predictions that a job writes, and RefusedRow for quarantined rows."""
    golden = comparison.golden
    order = list(range(len(golden)))
    if comparison.row_wise:
        comparison.order.shuffle(order)
    assert golden.file is not None  # noqa: S101  `refuse` has checked it
    with scratch_folder("likewise-scratch-verify-") as folder:
        source, output = golden.file.write(folder, order), folder / "scored.jsonl"
        window = comparison.order.choice(WINDOWS) if comparison.row_wise else ROWS
        options = ScoreOptions(
            runner=runner,
            master=master,
            column=golden.file.mapping,
            params=golden.params[0],
            header="present" if golden.file.format == "csv" else None,
            window=window,
            allow_empty=True,  # rows that are refused are compared too
        )
        comparison.served = Served(comparison.bundle.digest, comparison.bundle.build)
        api.score(comparison.bundle, source, output, options=options, progress=lambda p: comparison.report(p.rows))
        with output.open(encoding="utf-8") as stream:
            values = [json.loads(line)[PREDICTIONS] for line in stream]
        refused = _refused(Layout.of(output))
    found = iter(values)
    answers = [refused[row] if row in refused else next(found) for row in range(len(golden))]
    comparison.answered(order, answers)


def _refused(layout: Layout) -> dict[int, RefusedRow]:
    """The quarantined rows, counted from 0."""
    if not layout.quarantine.exists():
        return {}
    table = need("pyarrow.parquet", extra="batch").read_table(layout.quarantine, columns=["row", "code"])
    pairs = zip(table["row"].to_pylist(), table["code"].to_pylist(), strict=True)
    return {row - 1: RefusedRow(code) for row, code in pairs}
