"""Request bodies as batch transform splits them, and response formats as requested by `Accept`.

SageMaker's CSV has no header line (AWS, "Common Data Formats for Inference"), MLflow's has one; in a file that is split
by line, only the first part has it.  JSON Lines: https://jsonlines.org.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

import orjson

from likewise.core.errors import BadRequest, UnsupportedContentType
from likewise.core.signature import Signature
from likewise.wire import JSON, DecodedRequest, Decoder, Form, encode
from likewise.wire.content import CSV, parse_content_type
from likewise.wire.jsontext import parse_json

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

    def __init__(self, signature: Signature) -> None:
        self._plain = Decoder(signature)
        self._columns = signature.columns
        self._required = {field.name for field in signature.inputs or () if field.required}

    def __call__(self, body: bytes, content_type: str | None) -> DecodedRequest:
        """Like `Decoder.__call__`.  Raises BadRequest, which names the line, and UnsupportedContentType."""
        media, header, rest = _parts(content_type)
        if media in LINES:
            return self._plain(_as_one_document(body, rest), JSON)
        if media == CSV:
            return self._plain(self._with_header(parse_content_type(rest).text(body), header).encode(), CSV)
        try:
            return self._plain(body, content_type)
        except UnsupportedContentType as error:
            remedy = f"{error.remedy}; or {JSON_LINES}, one record per line"
            raise UnsupportedContentType(error.cause, remedy=remedy) from error

    def _with_header(self, text: str, header: str | None) -> str:
        """`text` with a header line; one is added unless the first line names all required columns."""
        if header == "present" or not text.strip():
            return text
        columns = self._columns
        if columns is None:
            if header == "absent":
                raise BadRequest("without column names in the signature, a CSV needs a header line", remedy="send one")
            return text
        first = next(csv.reader(io.StringIO(text, newline="")), [])
        if header is None and self._required <= set(first) and set(first) & set(columns):
            return text
        if len(first) != len(columns):
            raise BadRequest(
                f"the CSV's first line has {len(first)} fields: neither a header nor a row of {len(columns)} columns",
                remedy=f"send rows of {', '.join(columns)}, in this order, or a header line with these names",
            )
        return _csv_lines([columns]) + text


def accepted_media(accept: str | None, content_type: str | None) -> str:
    """The media type of the response by the Accept header; the default is JSON, or JSON Lines for JSON Lines requests.

    Raises UnsupportedContentType if none is supported.  Source: RFC 9110, 12.5.1.
    """
    default = JSON_LINES if _parts(content_type)[0] in LINES else JSON
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


def encode_as(media: str, form: Form, predictions: object) -> bytes:
    """Encode predictions as `media`, one per line unless it is JSON; ModelFailed for values without a JSON form."""
    if media == JSON:
        return encode(form, predictions)
    rows = predictions if isinstance(predictions, list) else [predictions]
    if media == CSV:
        return _csv_lines(_cells(row) for row in rows).encode()
    return b"".join(encode(Form.LEGACY, row) + b"\n" for row in rows)


def _parts(content_type: str | None) -> tuple[str, str | None, str]:
    """Media type, value of the parameter `header`, and the content type without that parameter."""
    media, *params = (content_type or JSON).split(";")
    kept, header = [media.strip()], None
    for param in params:
        key, _, value = param.partition("=")
        if key.strip().lower() == "header":
            header = value.strip().strip('"').lower()
        else:
            kept.append(param.strip())
    return media.strip().lower(), header, "; ".join(kept)


def _quality(params: str) -> float:
    for param in params.split(";"):
        key, _, value = param.partition("=")
        if key.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _as_one_document(body: bytes, content_type: str) -> bytes:
    """JSON Lines as one document: `dataframe_records` if every line is an object, else `inputs`."""
    rows = list(_lines(body, content_type))
    name = "dataframe_records" if rows and all(isinstance(row, dict) for row in rows) else "inputs"
    return encode(Form.LEGACY, {name: rows})


def _lines(body: bytes, content_type: str) -> Iterator[object]:
    charset = content_type.partition(";")[2]
    text = parse_content_type(f"{JSON};{charset}").text(body)
    for number, line in enumerate(text.split("\n")):
        if not line.strip():
            continue
        try:
            yield parse_json(line)
        except BadRequest as error:
            raise BadRequest(f"line {number}: {error.cause}", remedy=f"{error.remedy}; lines count from 0") from error


def _cells(row: object) -> Sequence[object]:
    values = list(row.values()) if isinstance(row, Mapping) else row if isinstance(row, list) else [row]
    return [_cell(value) for value in values]


def _cell(value: object) -> object:
    """A CSV field: text unquoted, null empty, other values as JSON."""
    if isinstance(value, str):
        return value
    encoded = encode(Form.LEGACY, value)
    return "" if encoded == b"null" else orjson.loads(encoded) if encoded.startswith(b'"') else encoded.decode()


def _csv_lines(rows: Iterator[Sequence[object]] | Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
