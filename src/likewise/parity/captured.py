"""Requests that a server captured (`--capture`), as a golden set: their predictions are the expected ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from likewise.batch.files import InputFile, read_errors
from likewise.batch.formats import format_of
from likewise.batch.listing import list_files
from likewise.batch.values import as_json
from likewise.core.arrow import records_of
from likewise.core.casts import Source
from likewise.core.errors import InputInvalid, LikewiseError, WrongUsage
from likewise.core.extras import need
from likewise.core.items import Item, Request, Row, Table
from likewise.core.signature import Signature
from likewise.core.tagged_json import decode
from likewise.engine.plain_values import per_row
from likewise.parity.golden import Golden, RowFile, Sample, Unfit, content
from likewise.parity.verify_options import VerifyOptions
from likewise.server.capture.columns import INPUT, JSON_COLUMN, MARK, OWN, PREDICTIONS
from likewise.wire import Decoder
from likewise.wire.frame import Fitter, Frame
from likewise.wire.params import ParamsFitter

Record = Mapping[str, Any]


def captured_set(options: VerifyOptions, signature: Signature, seed: int) -> Golden | None:
    """The golden set of captured files, in types of the `signature`; None if `options` do not name such files.

    A request of a model whose rows depend on each other is one item, with all its rows.  seed: of a sample.
    Raises InputNotFound, InputInvalid, WrongUsage, and the error of the first row if no row fits the model.
    """
    path = options.golden
    if path is None or format_of(str(path)) not in (None, "parquet"):
        return None
    files = list_files(path, any_suffix=False)
    marked = [format_of(file.name) == "parquet" and _is_captured(file) for file in files]
    if not any(marked):
        return None
    if not all(marked):
        raise InputInvalid(
            f"{path} has captured requests and other files", remedy="name a folder with captured requests only"
        )
    if options.column or options.expected or options.params:
        raise WrongUsage(
            f"{path} has captured requests, whose columns are known", remedy="omit --column, --expected and --params"
        )
    reading = _Reading(signature)
    kept: dict[int, tuple[int, Item | Unfit, object]] = {}
    sample = None if options.wanted is None else Sample(options.wanted, seed)
    for number, (item, expected) in enumerate(reading.items(files)):
        place = number if sample is None else sample.place()
        if place is not None:
            kept[place] = number, item, expected
    return _golden(path, sorted(kept.values(), key=lambda each: each[0]))


def _golden(path: str, kept: list[tuple[int, Item | Unfit, object]]) -> Golden:
    items = [item for _, item, _ in kept]
    unfit = [item.error for item in items if isinstance(item, Unfit)]
    if len(unfit) == len(items):
        raise unfit[0] if unfit else InputInvalid(f"{path} has no rows", remedy="send requests, then stop the server")
    named = all(not isinstance(item, Request) and getattr(item, "columns", ()) is not None for item in items)
    lines = [as_json(content(item)) for item in items] if named else []
    return Golden(
        path,
        items,
        {at: expected for at, (_, _, expected) in enumerate(kept) if expected is not None},
        RowFile("jsonl", (), lines) if named else None,
        numbers=[number for number, _, _ in kept],
    )


def _is_captured(file: InputFile) -> bool:
    with read_errors(file), file.open() as stream:
        try:
            schema = need("pyarrow.parquet", extra="batch").read_schema(stream)
        except need("pyarrow", extra="batch").ArrowException:
            return False  # an error that reading it as a golden set explains
    return MARK in (schema.metadata or {})


class _Reading:
    """Reads captured files for one model."""

    def __init__(self, signature: Signature) -> None:
        self._fit, self._decode = Fitter(signature), Decoder(signature)
        self._fit_params = ParamsFitter(signature)
        self._defaults = {each.name: each.raw.get("default") for each in signature.params or ()}

    def items(self, files: Iterable[InputFile]) -> Iterator[tuple[Item | Unfit, object]]:
        """Each item with its prediction, None if it has none."""
        for file in files:
            for rows in _requests(_records(file)):
                if rows[0]["likewise_whole"]:
                    yield self._whole(rows)
                else:
                    yield from map(self._row, rows)

    def _row(self, record: Record) -> tuple[Item | Unfit, object]:
        try:
            table, params = self._table([record]), self._params(record)
        except LikewiseError as error:
            return Unfit(_inputs(record), error), record[PREDICTIONS]
        return Row(table.columns, table.rows[0], params), record[PREDICTIONS]

    def _whole(self, rows: list[Record]) -> tuple[Item | Unfit, object]:
        first, expected = rows[0], rows[0][PREDICTIONS]
        try:
            if (sent := first["likewise_sent"]) is not None:
                params, form = first["likewise_params"], first["likewise_form"]
                body = {**sent, **(params or {})} if form == "document" else {form: sent, "params": params}
                call = self._decode.parsed(body)
                return Request(call.table, call.params), expected
            table, params = self._table(rows), self._params(first)
        except LikewiseError as error:
            return Unfit(_inputs(first), error), expected
        if len(rows) == 1 and expected is not None:
            with suppress(LikewiseError):
                expected = per_row(expected, 1)[0]
        return Request(table, params), expected

    def _table(self, rows: list[Record]) -> Table:
        inputs = [_inputs(record) for record in rows]
        if rows[0]["likewise_form"] == "value":
            return self._fit(Frame(None, [[record[INPUT]] for record in inputs], "the row", Source.TYPED))
        names = tuple(inputs[0])
        values = [[record[name] for name in names] for record in inputs]
        return self._fit(Frame(names, values, "the row", Source.TYPED))

    def _params(self, record: Record) -> Mapping[str, object] | None:
        """The params of a request, None if it has only defaults, which jobs use as well."""
        params = self._fit_params(record["likewise_params"]) or {}
        return params if any(value != self._defaults.get(name) for name, value in params.items()) else None


def _requests(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The rows of one request after the other; each starts with a row 0."""
    rows: list[Record] = []
    for record in records:
        if rows and record["likewise_row"] == 0:
            yield rows
            rows = []
        rows.append(record)
    if rows:
        yield rows


def _inputs(record: Record) -> dict[str, Any]:
    """The inputs of a row by name, without those that were not sent."""
    missing = record["likewise_missing"] or ()
    found = {
        name: value
        for name, value in record.items()
        if not name.startswith(OWN) and name != PREDICTIONS and name not in missing
    }
    return found[INPUT] if record["likewise_form"] == "record" else found


def _records(file: InputFile) -> Iterator[Record]:
    """The rows of a captured file; columns of JSON are decoded."""
    pa, pq = need("pyarrow", extra="batch"), need("pyarrow.parquet", extra="batch")
    try:
        with read_errors(file), file.open() as stream, pq.ParquetFile(stream) as parquet:
            encoded = [
                each.name for each in parquet.schema_arrow if (each.metadata or {}).items() >= JSON_COLUMN.items()
            ]
            for batch in parquet.iter_batches(1_000):
                for record in records_of(batch)[0]:
                    texts = {name: decode(record[name]) for name in encoded if record[name] is not None}
                    yield {**record, **texts}
    except (pa.ArrowException, json.JSONDecodeError) as error:
        raise InputInvalid(
            f"{file.name} cannot be read: {error}", remedy="delete the file, which is damaged"
        ) from error
