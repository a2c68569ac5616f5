"""The golden set: the rows that every backend predicts, from a file or from the input example logged with the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from likewise.batch.columns import RowMaker, inferred_types
from likewise.batch.header import Header
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
    """Rows in the model's types, and its params. source: where the rows are from, for messages.

    labels: the names of the columns that are numbers in the signature, which MLflow does not take as text.
    tensors: whether the inputs are named tensors, which MLflow does not take as a data frame of lists.
    """

    table: Table
    source: str
    params: Mapping[str, object] = field(default_factory=dict)
    labels: Mapping[str, object] = field(default_factory=dict)
    tensors: bool = False

    def __len__(self) -> int:
        return len(self.table)

    def body(self, first: int, rows: int) -> bytes:
        """The body of an MLflow 3 request (JSON) for `rows` rows from row number `first`."""
        params = {"params": self.params} if self.params else {}
        if (sent := self.table.sent) is not None:  # always whole
            if sent.form == "document" and isinstance(sent.value, Mapping):
                return encode(Form.DOCUMENT, {**sent.value, **self.params})
            return encode(Form.DOCUMENT, {sent.form: sent.value, **params})
        batch = self.table.rows[first : first + rows]
        if self.table.columns is None:
            document: dict[str, object] = {"inputs": [row[0] for row in batch]}
        elif self.tensors:
            document = {"instances": [dict(zip(self.table.columns, row, strict=True)) for row in batch]}
        else:
            columns = [self.labels.get(name, name) for name in self.table.columns]
            document = {"dataframe_split": {"columns": columns, "data": [list(row) for row in batch]}}
        return encode(Form.DOCUMENT, {**document, **params})


def golden_rows(path: str, signature: Signature, columns: Mapping[str, str], header: str | None = None) -> Golden:
    """The golden set in CSV, JSON Lines or Parquet files (a file, a folder or a glob), read as a batch job reads them.

    header: of CSV, `present` or `absent`.
    Raises InputNotFound, InputInvalid, and RowRefused for a row that does not fit the model's signature.
    """
    source = open_source(path, header=Header(header, signature, columns))
    maker = RowMaker(source, signature, columns, inferred_types(source, signature))
    rows: list[Row] = []
    for chunk in source.chunks(CHUNK):
        rows.extend(_valid_rows(items_of(chunk, maker)))
    if not rows:
        raise InputInvalid(f"{path} has no rows", remedy="provide a golden set with at least one row")
    return Golden(_table(rows, path), path, labels=_labels(signature), tensors=signature.is_tensor)


def logged_example(model: Path, signature: Signature) -> Golden:
    """The input example in the folder `model` of an MLflow model; WrongUsage if there is none, or it has no rows."""
    path = model / EXAMPLE
    remedy = "use --golden FILE with a file that has the model's columns"
    if not path.is_file():
        raise WrongUsage("the model was logged without an input example", remedy=remedy)
    try:
        request = decode(path.read_bytes(), None, signature)
    except LikewiseError as error:
        cause = f"the model's input example does not fit its signature: {error.cause}"
        raise WrongUsage(cause, remedy=remedy) from error
    if not len(request.table):
        raise WrongUsage("the model's input example has no rows", remedy=remedy)
    defaults = {field.name: field.raw.get("default") for field in signature.params or ()}
    params = {name: value for name, value in (request.params or {}).items() if value != defaults.get(name)}
    return Golden(request.table, "the model's input example", params, _labels(signature), signature.is_tensor)


def _labels(signature: Signature) -> dict[str, object]:
    named = {field.name: field.raw["name"] for field in signature.inputs or () if field.name is not None}
    return {name: label for name, label in named.items() if label != name}


def _valid_rows(items: Sequence[Item | Failed]) -> Iterator[Row]:
    """The rows; raises the error of the first invalid one."""
    for each in items:
        if isinstance(each, Failed):
            raise each.error
        if isinstance(each, Row):  # always true: batch jobs have no other items
            yield each


def _table(rows: list[Row], path: str) -> Table:
    """All rows as one table; InputInvalid if they do not have the same columns."""
    columns = rows[0].columns
    for number, row in enumerate(rows):
        if row.columns != columns:
            raise InputInvalid(
                f"row {number + 1} of {path} has the columns {row.columns}, but the first row has {columns}",
                remedy="give every row of the golden set the same columns, with null for missing values",
            )
    return Table(columns, [row.values for row in rows])
