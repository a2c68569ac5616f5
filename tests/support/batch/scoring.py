"""Small engines and files for the tests of batch jobs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from likewise.batch import JobReport, ScoreOptions, score
from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import RowRefused
from likewise.core.items import Item, Row
from likewise.core.results import Failed, Ok, Result
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec

SPEC = EngineSpec("test", "fp32", row_wise=True, thread_safe=True, pure=True, budget=64)
TEXT = Signature.parse(
    {"inputs": [{"name": "text", "type": "string"}], "outputs": [{"name": "text", "type": "string"}]}
)
UNSIGNED = Signature()


class FunctionEngine:
    """Predicts each row with `predict(row)`; an exception fails the whole run."""

    def __init__(self, predict: Callable[[Row], object], **spec: object) -> None:
        self.spec = replace(SPEC, **spec)
        self.predict = predict
        self.windows: list[int] = []

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        return [self._work(item) for item in items]

    def run(self, work: Sequence[Work]) -> list[Result]:
        self.windows.append(len(work))
        return [Ok(self.predict(entry.payload)) for entry in work]

    def close(self) -> None:
        pass

    def _work(self, item: Item) -> Work | Failed:
        if None in item.values:
            return Failed(RowRefused("the text is null", remedy="give the row a text"))
        return Work(repr(item.values), max(1, len(str(item.values)) // 4), item)


def upper(row: Row) -> dict[str, object]:
    """The model of most of these tests: returns the text in capitals, as a record with one column."""
    return {"text": f"<{row.get('text')}>".upper()}


def run_job(
    source: Path | str, output: Path | str, predict: Callable[[Row], object] = upper, **more: object
) -> JobReport:
    """Run `score` with a FunctionEngine.

    Keywords: those of ScoreOptions, and `engine`, `signature`, `progress`, `build` (digest).  Jobs may score nothing.
    """
    more.setdefault("allow_empty", True)
    engine = more.pop("engine", None) or FunctionEngine(predict)
    signature = more.pop("signature", TEXT)
    progress = more.pop("progress", None)
    model = ModelSpec("sha256:b", build=str(more.pop("build", "sha256:c")))
    return score(engine, model.digest, signature, source, output, ScoreOptions(**more), progress, model)


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write `rows` in the format of the path's suffix, with the standard library or pyarrow."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\r\n")
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path: Path) -> list[dict[str, object]]:
    """The rows of a file, read independently of the code under test."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def quarantined(output: Path) -> list[dict[str, object]]:
    """The rows in the quarantine of an output."""
    single = output.with_name(f"{output.name}.quarantine.parquet")
    return pq.read_table(single if single.exists() else output / "_quarantine.parquet").to_pylist()


def names(folder: Path) -> set[str]:
    """The names of all entries of a folder, including hidden ones."""
    return {entry.name for entry in folder.iterdir()}


def texts(values: Iterable[object]) -> list[dict[str, object]]:
    """Rows with a single column, `text`."""
    return [{"text": value} for value in values]
