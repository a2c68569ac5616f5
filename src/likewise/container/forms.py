"""Request bodies as batch transform splits them, and response formats as requested by `Accept`.

SageMaker's CSV has no header line (AWS, "Common Data Formats for Inference"), MLflow's has one; in a file that is split
by line, only the first part has it.  JSON Lines: https://jsonlines.org.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

import orjson

from likewise.core.errors import BadRequest, UnsupportedContentType
from likewise.core.signature import Signature
from likewise.wire import JSON, DecodedRequest, Decoder, Form, encode
from likewise.wire.cells import Cells
from likewise.wire.content import CSV, parse_content_type
from likewise.wire.jsontext import UNLIMITED, parse_json

JSON_LINES = "application/jsonlines"
LINES = frozenset({JSON_LINES, "application/jsonl", "application/x-ndjson"})

_RESPONSE_TYPES = (JSON, JSON_LINES, CSV)
_ALIASES = {
    "*/*": None,
    "application/*": None,
    "text/*": CSV,
    JSON: JSON,
    CSV: CSV,
    **dict.fromkeys(LINES, JSON_LINES),
}


class LineDecoder:
    """A `wire.Decoder` that also reads JSON Lines, and CSV with or without a header line.  Thread-safe."""

    def __init__(self, signature: Signature, cells: Cells = UNLIMITED) -> None:
        self._cells = cells
        self._decode = Decoder(signature, by_line=True, cells=cells)

    def __call__(self, body: bytes, content_type: str | None) -> DecodedRequest:
        """Like `Decoder.__call__`.  Raises BadRequest, which names the line, and UnsupportedContentType."""
        if _media(content_type) in LINES:
            self._cells.json(body)
            return self._json_lines(_json_values(body, content_type or ""))
        try:
            return self._decode(body, content_type)
        except UnsupportedContentType as error:
            remedy = f"{error.remedy}; or {JSON_LINES}, one record per line"
            raise UnsupportedContentType(error.cause, remedy=remedy) from error

    def _json_lines(self, values: list[object]) -> DecodedRequest:
        """The lines as `dataframe_records` if every one is an object, else as `inputs`."""
        name = "dataframe_records" if values and all(isinstance(value, dict) for value in values) else "inputs"
        call = self._decode.parsed({name: values})
        if len(call.table) != len(values):
            raise BadRequest(
                f"the model takes the {len(values)} lines as {len(call.table)} row",
                remedy='send each row as an object with the names of the columns: {"column": value}',
            )
        return call


def accepted_media(accept: str | None, content_type: str | None) -> str:
    """The media type of the response by the Accept header; the default is JSON, or JSON Lines for JSON Lines requests.

    Raises UnsupportedContentType if none is supported.  Source: RFC 9110, 12.5.1.
    """
    default = JSON_LINES if _media(content_type) in LINES else JSON
    best, ranked = None, 0.0
    for part in (accept or "*/*").split(","):
        media, _, rest = part.strip().lower().partition(";")
        quality = _quality(rest)
        if media.strip() in _ALIASES and quality > ranked:
            best, ranked = _ALIASES[media.strip()] or default, quality
    if best is None:
        raise UnsupportedContentType(
            f"Accept {accept!r} matches no supported media type", remedy=f"accept one of: {', '.join(_RESPONSE_TYPES)}"
        )
    return best


def _media(content_type: str | None) -> str:
    return (content_type or JSON).partition(";")[0].strip().lower()


def _quality(params: str) -> float:
    for param in params.split(";"):
        key, _, value = param.partition("=")
        if key.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _json_values(body: bytes, content_type: str) -> list[object]:
    """The value of each line; BadRequest for a blank line, because the sender matches the predictions to its lines."""
    text = parse_content_type(f"{JSON};{content_type.partition(';')[2]}").text(body)
    return [
        _json_value(line, number) for number, line in enumerate(text.removesuffix("\n").split("\n") if text else ())
    ]


def _json_value(line: str, number: int) -> object:
    if not line.strip():
        raise BadRequest(f"line {number} is blank", remedy="remove it, or send null; lines count from 0")
    try:
        return parse_json(line)
    except BadRequest as error:
        raise BadRequest(f"line {number}: {error.cause}", remedy=f"{error.remedy}; lines count from 0") from error


def encode_as(media: str, call: DecodedRequest, predictions: object, signature: Signature) -> bytes:
    """Encode the predictions of `call` as `media`: JSON, or one line per row of the request.

    A CSV line has a field per column of the signature's outputs, in their order, or else of the records; the elements
    of a list; or a single value.  Raises UnsupportedContentType if the predictions cannot be written this way, and
    ModelFailed for values without a JSON form.
    """
    if media == JSON:
        return encode(call.form, predictions)
    rows = _one_per_row(media, predictions, len(call.table))
    if media == CSV:
        return _csv_lines(_fields(rows, signature))
    return b"".join(encode(Form.LEGACY, row) + b"\n" for row in rows)


def _one_per_row(media: str, predictions: object, rows: int) -> list[object]:
    """The prediction of each row; a model that is not row-wise may return columns, or anything for a single row."""
    if isinstance(predictions, list) and len(predictions) == rows:
        return predictions
    if isinstance(predictions, dict) and (predictions or not rows):
        columns = predictions.values()
        if all(isinstance(column, list) and len(column) == rows for column in columns):
            return [dict(zip(predictions, values, strict=True)) for values in zip(*columns, strict=True)]
    if rows == 1 and not isinstance(predictions, list):
        return [predictions]
    returned = f"{len(predictions)} predictions" if isinstance(predictions, list) else "one prediction"
    raise UnsupportedContentType(
        f"the model returned {returned} for {rows} rows, so they cannot be written as {media}, one per line",
        remedy=f"accept {JSON}, or let the model return one prediction per row",
    )


def _fields(rows: list[object], signature: Signature) -> Iterable[list[object]]:
    """The values of each CSV line; their number and order are the same in each."""
    records = [row for row in rows if isinstance(row, dict)]
    if records and len(records) == len(rows):
        names = _names(records, signature)
        return ([record.get(name) for name in names] for record in records)
    lists = [row for row in rows if isinstance(row, list)]
    if lists and len(lists) == len(rows) and len(set(map(len, lists))) == 1 and lists[0]:
        return lists
    if records or lists:
        raise _not_csv("they are not records with the same keys, lists of the same length, or single values")
    return ([row] for row in rows)


def _names(records: Sequence[dict[str, object]], signature: Signature) -> Sequence[str]:
    """The columns of records: the signature's outputs, or else the first record's keys, which all must have."""
    outputs = [field.name for field in signature.outputs or ()]
    names = [name for name in outputs if name is not None] if None not in outputs else []
    columns = dict.fromkeys(names or records[0])
    for number, record in enumerate(records):
        unknown = record.keys() - columns.keys()
        if unknown or not columns or (not names and len(record) != len(columns)):
            expected = f"{'the signature has' if names else 'the first has'} {', '.join(map(repr, columns)) or 'none'}"
            keys = ", ".join(map(repr, record)) or "no columns"
            raise _not_csv(f"the prediction of row {number} has {keys}, but {expected}")
    return list(columns)


def _csv_lines(rows: Iterable[list[object]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for number, row in enumerate(rows):
        cells = [_cell(value) for value in row]
        if any("\n" in cell or "\r" in cell for cell in cells):
            raise _not_csv(f"the prediction of row {number} contains a line break, so it would take several lines")
        writer.writerow(cells)
    return out.getvalue().encode()


def _cell(value: object) -> str:
    """A CSV field: text unquoted, null empty, other values as JSON."""
    if isinstance(value, str):
        return value
    encoded = encode(Form.LEGACY, value)
    if encoded == b"null":
        return ""
    return str(orjson.loads(encoded)) if encoded.startswith(b'"') else encoded.decode()


def _not_csv(cause: str) -> UnsupportedContentType:
    return UnsupportedContentType(f"the predictions cannot be written as {CSV}: {cause}", remedy=f"accept {JSON_LINES}")
