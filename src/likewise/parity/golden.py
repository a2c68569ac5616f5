"""The rows that every place is asked: a file's, or those of the example that was logged with the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from likewise.batch.columns import RowMaker
from likewise.batch.rows import items_of
from likewise.batch.sources import open_source
from likewise.core.errors import InputInvalid, LikewiseError, WrongUsage
from likewise.core.items import Item, Row, Table
from likewise.core.results import Failed
from likewise.core.signature import Signature
from likewise.wire import Form, decode, encode

CHUNK = 1_000
EXAMPLE = "serving_input_example.json"


@dataclass(frozen=True, slots=True)
class Golden:
    """Rows as the model takes them, and its params. source: where they are from."""

    table: Table
    source: str
    params: Mapping[str, object] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    def body(self, first: int, rows: int) -> bytes:
        """A request for so many rows, as today's MLflow takes it: JSON."""
        some = self.table.rows[first : first + rows]
        if self.table.columns is None:
            asked: dict[str, object] = {"inputs": [row[0] for row in some]}
        else:
            asked = {"dataframe_split": {"columns": list(self.table.columns), "data": [list(row) for row in some]}}
        return encode(Form.DOCUMENT, {**asked, **({"params": self.params} if self.params else {})})


def golden_rows(path: str, signature: Signature, columns: Mapping[str, str]) -> Golden:
    """Of a CSV, JSON-lines or Parquet file (a folder, a glob): what a batch job would make of its rows.

    Raises InputNotFound, InputInvalid, and RowRefused for a row that is not of the model's types.
    """
    source = open_source(path)
    maker = RowMaker(source, signature, columns)
    rows: list[Row] = []
    for chunk in source.chunks(CHUNK):
        rows.extend(_sound(items_of(chunk, maker)))
    if not rows:
        raise InputInvalid(f"{path} has no row", remedy="a golden set has one row at least")
    return Golden(_table(rows, path), path)


def logged_example(model: Path, signature: Signature) -> Golden:
    """Of the MLflow model's folder; WrongUsage where it has no example, or one that has no rows."""
    found = model / EXAMPLE
    remedy = "--golden FILE, with the model's columns"
    if not found.is_file():
        raise WrongUsage("the model was logged without an example", remedy=remedy)
    try:
        call = decode(found.read_bytes(), None, signature)
    except LikewiseError as error:
        raise WrongUsage(f"the model's example does not fit its signature: {error.cause}", remedy=remedy) from error
    if call.table.sent is not None or not len(call.table):
        raise WrongUsage("the model's example has no rows", remedy=remedy)
    usual = {field.name: field.raw.get("default") for field in signature.params or ()}
    given = {name: value for name, value in call.params.items() if value != usual.get(name)}
    return Golden(call.table, "the model's example", given)


def _sound(made: Sequence[Item | Failed]) -> Iterator[Row]:
    for each in made:
        if isinstance(each, Failed):
            raise each.error
        if isinstance(each, Row):  # a job has no other items
            yield each


def _table(rows: list[Row], path: str) -> Table:
    """One table of them; InputInvalid where optional columns come and go."""
    columns = rows[0].columns
    for number, row in enumerate(rows):
        if row.columns != columns:
            raise InputInvalid(
                f"row {number + 1} of {path} has the columns {row.columns}, the first one {columns}",
                remedy="give every row of a golden set the same columns, or null",
            )
    return Table(columns, [row.values for row in rows])
