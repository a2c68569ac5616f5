"""The golden set: the rows that every backend predicts, from a file or from the input example logged with the model."""

from __future__ import annotations

import csv
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from likewise.batch.columns import RowMaker, inferred_types
from likewise.batch.files import read_errors
from likewise.batch.formats import PREDICTIONS, Chunk, open_file, require_format
from likewise.batch.header import Header
from likewise.batch.listing import list_files
from likewise.batch.sources import Files, open_source
from likewise.batch.values import as_json
from likewise.core.casts import properties_of
from likewise.core.errors import BadRequest, InputInvalid, LikewiseError, WrongUsage
from likewise.core.extras import need
from likewise.core.items import Item, Params, Request, Row, Table
from likewise.core.keys import item_key
from likewise.core.results import Failed
from likewise.core.signature import Signature
from likewise.engine.pyfunc import takes_documents
from likewise.engine.versions import mlmodel_of
from likewise.parity.verify_options import VerifyOptions
from likewise.wire import Decoder
from likewise.wire.document import KEYS
from likewise.wire.params import ParamsFitter

CHUNK = 1_000
EXAMPLE = "serving_input_example.json"
EXPECTED, PARAMS = "expected", "params"  # columns, unless the model has them


@dataclass(frozen=True, slots=True)
class Golden:
    """What every backend predicts.

    source: where the rows are from, for messages.  items: one for each answer: a `Row` in the model's types, a
    `Request` for a document of a language model, and for an example that is not a table, or a row that does not fit the
    model.  expected: the known answers, by item.  file: the same rows as they were read, for jobs; None for items that
    jobs do not take.  numbers: of the items in the source, from 0.  left_out: rows that cannot be read, and `why` the
    first cannot.
    """

    source: str
    items: Sequence[Item | Unfit]
    expected: Mapping[int, object] = field(default_factory=dict)
    file: RowFile | None = None
    format: str = "jsonl"
    numbers: Sequence[int] = ()
    left_out: int = 0
    why: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def number(self, index: int) -> int:
        """The number of an item's row in the source, from 0."""
        return self.numbers[index] if self.numbers else index

    @property
    def omitted(self) -> list[str]:
        """What is not compared, in words."""
        unread = f"{self.left_out:,} rows cannot be read and are left out; the first: {self.why}"
        unknown = len(self) - len(self.expected) if self.expected else 0
        return [
            *([unread] if self.left_out else []),
            *([f"{unknown:,} of {len(self):,} rows have no expected prediction"] if unknown else []),
        ]

    @property
    def params(self) -> list[Params]:
        """The different params of its items, None for none; at least one entry."""
        every = [item.params or None for item in self.items if not isinstance(item, Unfit)]
        return list({item_key(Row(None, (), params)): params for params in every}.values()) or [None]


@dataclass(frozen=True, slots=True)
class Unfit:
    """A row that does not fit the model: its values by the model's columns, and why it does not."""

    record: Mapping[str, object]
    error: LikewiseError


def content(item: Item | Unfit) -> object:
    """What a row or a document contains."""
    if isinstance(item, Unfit):
        return dict(item.record)
    if isinstance(item, Request):
        sent = item.table.sent
        return sent.value if sent is not None else [_record(Row(item.table.columns, row)) for row in item.table.rows]
    return _record(item)


def _record(row: Row) -> object:
    return row.values[0] if row.columns is None else dict(zip(row.columns, row.values, strict=True))


# --- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RowFile:
    """The rows of a golden set in the format and with the types in which they were read.

    columns: their names.  rows: records, lines of JSON, or a `pyarrow.Table`.  dropped: columns that are not input.
    mapping: input column to model column.
    """

    format: str
    columns: Sequence[str]
    rows: Any
    dropped: frozenset[str] = frozenset()
    mapping: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path, order: Sequence[int]) -> Path:
        """Write the rows to a file in this order; returns its path."""
        path = folder / f"golden.{self.format}"
        if self.format == "parquet":
            table = self.rows.take(list(order))
            kept = [name for name in table.column_names if name not in self.dropped]
            need("pyarrow.parquet", extra="batch").write_table(table.select(kept), path)
            return path
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            if self.format == "csv":
                kept = [name for name in self.columns if name not in self.dropped]
                # quoted, because Python 3.11 does not quote a carriage return
                writer = csv.DictWriter(stream, kept, extrasaction="ignore", lineterminator="\n", quoting=csv.QUOTE_ALL)
                writer.writeheader()
                writer.writerows(self.rows[index] for index in order)
            else:
                stream.writelines(f"{self._line(self.rows[index])}\n" for index in order)
        return path

    def _line(self, line: str) -> str:
        if not self.dropped:
            return line
        record = json.loads(line)
        return json.dumps({name: value for name, value in record.items() if name not in self.dropped})


def golden_set(
    options: VerifyOptions, model: Path, signature: Signature, scored: str | None = None, seed: int = 0
) -> Golden:
    """The golden set that `options` name; else the input of `scored`, which a job wrote; else the model's example.

    model: its folder.  seed: of a sample.
    Raises InputNotFound, InputInvalid, WrongUsage, and the error of the first row if no row fits the model.
    """
    if options.golden is None and scored is None:
        if options.wanted is not None:
            raise WrongUsage("the model's input example is too small for a sample", remedy="add --golden FILE")
        return logged_example(model, signature)
    path = options.golden or str(scored)
    header = Header(options.header, signature, options.column)
    source = open_source(path, header=header) if options.golden is not None else open_scored(path)
    return _Reading(source, model, signature, options).golden(
        path, None if options.wanted is None else Sample(options.wanted, seed)
    )


def scored_rows(path: str, model: Path, signature: Signature, golden: Golden) -> tuple[dict[int, object], str]:
    """The predictions of a job for those items of the golden set that its files contain, and the files' format."""
    options = VerifyOptions(column=golden.file.mapping if golden.file is not None else {})
    source = open_scored(path)
    reading = _Reading(source, model, signature, options)
    found: dict[bytes, dict[int, object]] = defaultdict(dict)
    for number, item, prediction in reading.predictions():
        found[_key(item)][number] = prediction
    answers: dict[int, object] = {}
    for index, each in enumerate(golden.items):
        if same := found.get(_key(each)):
            number = golden.number(index)  # of the row itself, if the file is the golden set, else of any equal one
            at = number if golden.source == path and number in same else next(iter(same))
            answers[index] = same[at] if len(same) == 1 else same.pop(at)
    return answers, source.format


def _key(item: Item | Unfit) -> bytes:
    """Equal for equal values, whatever the format of their file."""
    if isinstance(item, Unfit):
        item = Row(tuple(item.record), tuple(item.record.values()))
    return item_key(replace(item, arrow=None) if isinstance(item, Row) else item)


def open_scored(path: str) -> Files:
    """The files that a job wrote, with the column `predictions`.  Raises InputNotFound, InputInvalid."""
    files = list_files(path, any_suffix=False)
    parts = []
    for file in files:
        with read_errors(file):
            parts.append(open_file(file, require_format(file.name), Header(None, Signature(), {})))
    source = Files(path, parts)
    if PREDICTIONS not in source.columns:
        raise InputInvalid(
            f"{path} has no column `{PREDICTIONS}`", remedy="name a file or folder that `likewise score` wrote"
        )
    return source


@dataclass
class Sample:
    """Chooses rows at random while all are read once, each with the same probability.

    Source: J. S. Vitter, Random sampling with a reservoir, ACM TOMS 11 (1985), algorithm R.
    """

    size: int
    seed: int

    def __post_init__(self) -> None:
        self._random, self._seen = random.Random(self.seed), 0  # noqa: S311  nothing depends on it being secret

    def place(self) -> int | None:
        """The place of the next row among those chosen, in which it replaces another; None if it is not chosen."""
        self._seen += 1
        if self._seen <= self.size:
            return self._seen - 1
        at = self._random.randrange(self._seen)
        return at if at < self.size else None


@dataclass(frozen=True, slots=True)
class _Read:
    """A row.  number: from 0.  native: the row in the format's own form."""

    number: int
    item: Item | Unfit | Failed
    record: Mapping[str, object]
    native: Any


class _Reading:
    """Reads rows for one model."""

    def __init__(self, source: Files, model: Path, signature: Signature, options: VerifyOptions) -> None:
        self._documents = takes_documents(mlmodel_of(model).get("metadata"))
        self._source, self._signature, self._options = source, signature, options
        known = set(options.column)  # which the model takes
        for each in signature.inputs or ():
            known |= {str(each.name), *properties_of(each.raw)}
        unsigned = not signature.inputs
        self._expected = _column(options.expected, EXPECTED, source, known, unsigned=unsigned)
        self._params = _column(options.params, PARAMS, source, known, unsigned=unsigned)
        extra = {self._expected, self._params, PREDICTIONS} & set(source.columns)
        self._dropped = frozenset(str(name) for name in extra if name is not None)
        self._columns = source.columns
        source.columns = tuple(name for name in source.columns if name not in self._dropped)  # what the model may take
        self._types = inferred_types(source, signature)
        self._maker = RowMaker(source, signature, options.column, self._types)
        self._decode = Decoder(signature)
        self._fit_params = ParamsFitter(signature)

    def golden(self, path: str, sample: Sample | None) -> Golden:
        """Read all rows, or a sample."""
        kept: dict[int, _Read] = {}
        number = 0
        for chunk in self._source.chunks(CHUNK):
            for index in range(len(chunk)):
                place = number if sample is None else sample.place()
                if place is not None:
                    item = self._item(chunk, index, number)
                    kept[place] = _Read(number, item, chunk.records[index], _native(chunk, index))
                number += 1
        if not kept:
            raise InputInvalid(f"{path} has no rows", remedy="provide a golden set with at least one row")
        rows = sorted(kept.values(), key=lambda each: each.number)
        faults = [each.item.error for each in rows if isinstance(each.item, Failed)]
        read = [each for each in rows if not isinstance(each.item, Failed)]
        unfit = [each.item.error for each in read if isinstance(each.item, Unfit)]
        if len(unfit) == len(read):
            raise [*unfit, *faults][0]
        answers = {at: each.record.get(self._expected or "") for at, each in enumerate(read)}
        absent = (None, "") if self._source.format == "csv" else (None,)
        return Golden(
            path,
            [each.item for each in read if not isinstance(each.item, Failed)],
            {at: answer for at, answer in answers.items() if answer not in absent} if self._expected else {},
            self._file(read),
            self._source.format,
            [each.number for each in read],
            len(faults),
            faults[0].cause if faults else "",
        )

    def predictions(self) -> Iterator[tuple[int, Item | Unfit, object]]:
        """The rows that a job wrote, with their numbers from 0 and its predictions."""
        number = -1
        for chunk in self._source.chunks(CHUNK):
            for index, record in enumerate(chunk.records):
                number += 1
                item = self._item(chunk, index, number)
                if not isinstance(item, Failed) and PREDICTIONS in record:
                    yield number, item, record[PREDICTIONS]

    def _item(self, chunk: Chunk, index: int, number: int) -> Item | Unfit | Failed:
        """A row; Failed if it cannot be read."""
        if index in chunk.faults:
            return Failed(chunk.faults[index])
        where = f"row {number + 1}"
        record = {name: value for name, value in chunk.records[index].items() if name not in self._dropped}
        params = self._params_of(chunk.records[index], where)
        if self._documents or (not self._signature.inputs and _is_document(record)):
            return self._document(record, params)
        made = self._maker(record, where)
        if isinstance(made, Failed):
            return Unfit(self._by_model(record), made.error)
        return made if params is None else replace(made, params=params)

    def _by_model(self, record: Mapping[str, object]) -> dict[str, object]:
        """The values of the model's columns, by its names."""
        named = {self._options.column.get(name, name): value for name, value in record.items()}
        columns = self._signature.columns
        return named if columns is None else {name: value for name, value in named.items() if name in columns}

    def _document(self, record: Mapping[str, object], params: Mapping[str, object] | None) -> Item | Unfit:
        try:
            decoded = self._decode.parsed({**record, **(params or {})})
        except LikewiseError as error:
            return Unfit(record, error)
        return Request(decoded.table, decoded.params)

    def _params_of(self, record: Mapping[str, object], where: str) -> Mapping[str, object] | None:
        value = record.get(self._params) if self._params is not None else None
        if isinstance(value, str):
            with suppress(ValueError):
                value = json.loads(value) if value.strip() else None
        if value is not None and not isinstance(value, Mapping):
            raise InputInvalid(
                f"{where}: params are {str(value)[:100]!r}", remedy='write them as a JSON object, such as {"top_k": 3}'
            )
        if value is None:
            return None
        try:  # a column of objects has null for what a row lacks
            return self._fit_params({name: each for name, each in value.items() if each is not None})
        except BadRequest as error:
            raise InputInvalid(f"{where}: {error.cause}", remedy=error.remedy) from error

    def _file(self, read: Sequence[_Read]) -> RowFile:
        if self._types is not None:  # inferred from all rows: a job would infer others from a sample
            records = [content(each.item) for each in read if not isinstance(each.item, Failed)]
            return RowFile("jsonl", self._columns, list(map(as_json, records)))
        rows: Any = [each.record if self._source.format == "csv" else each.native for each in read]
        if self._source.format == "parquet":
            pa = need("pyarrow", extra="batch")
            tables = [pa.Table.from_batches([each]).select(list(self._columns)) for each in rows]
            rows = pa.concat_tables(tables, promote_options="default")
        return RowFile(self._source.format, self._columns, rows, self._dropped, self._options.column)


def _native(chunk: Chunk, index: int) -> Any:
    """One row in the format's own form."""
    if isinstance(chunk.native, list):
        return chunk.native[index]
    return None if chunk.native is None else chunk.native.slice(index, 1)


def _column(named: str | None, usual: str, source: Files, known: set[str], *, unsigned: bool) -> str | None:
    """The column of answers or params: the one that the user named, else the usual one if it is not an input."""
    if named is not None:
        if named not in source.columns:
            raise InputInvalid(
                f"{source.name} has no column `{named}`", remedy=f"it has {', '.join(map(repr, source.columns))}"
            )
        return named
    return usual if usual in source.columns and not unsigned and usual not in known else None


def _is_document(record: Mapping[str, object]) -> bool:
    """Whether a row is a request of a language model that has no signature."""
    return any(isinstance(record.get(key), list) for key in KEYS)


# --- the model's example ---------------------------------------------------------------------------------------------


def logged_example(model: Path, signature: Signature) -> Golden:
    """The input example in the folder `model` of an MLflow model; WrongUsage if there is none, or it has no rows."""
    path = model / EXAMPLE
    remedy = "use --golden FILE with a file that has the model's columns"
    if not path.is_file():
        raise WrongUsage("the model was logged without an input example", remedy=remedy)
    try:
        request = Decoder(signature)(path.read_bytes(), None)
    except LikewiseError as error:
        cause = f"the model's input example does not fit its signature: {error.cause}"
        raise WrongUsage(cause, remedy=remedy) from error
    if not len(request.table):
        raise WrongUsage("the model's input example has no rows", remedy=remedy)
    defaults = {field.name: field.raw.get("default") for field in signature.params or ()}
    params = {name: value for name, value in (request.params or {}).items() if value != defaults.get(name)} or None
    source = "the model's input example"
    if request.table.sent is not None:
        return Golden(source, [Request(request.table, request.params)])
    rows = list(request.table.split(request.params if params else None))
    return Golden(source, rows, file=_lines(request.table))


def _lines(table: Table) -> RowFile:
    columns = table.columns or ("input",)
    lines = [as_json(dict(zip(columns, row, strict=True))) for row in table.rows]
    return RowFile("jsonl", columns, lines, mapping={} if table.columns else {"input": "input"})
