"""Decoding of request bodies by content type."""

from __future__ import annotations

import math

from likewise.core.errors import BadRequest
from likewise.core.signature import Signature
from likewise.wire.call import DecodedRequest, Form
from likewise.wire.cells import Cells
from likewise.wire.content import CSV, PARQUET, parse_content_type
from likewise.wire.csvtext import parse_csv
from likewise.wire.document import KEYS, parse_document
from likewise.wire.frame import Fitter, Frame
from likewise.wire.jsontext import UNLIMITED, parse_json, shown
from likewise.wire.mlflow import FORMS, parse_call
from likewise.wire.pandas_json import parse_by_label, parse_records, parse_split
from likewise.wire.params import ParamsFitter
from likewise.wire.parquet import parse_parquet

_BODY = "the body"


def decode(body: bytes, content_type: str | None, signature: Signature) -> DecodedRequest:
    """Decode a single request: `Decoder(signature)(body, content_type)`."""
    return Decoder(signature)(body, content_type)


class Decoder:
    """Decodes the request bodies of one model.  Thread-safe; work that depends only on the signature is done once.

    by_line: for clients that split their files by line: if the Content-Type does not say whether a CSV has a header,
    the first line decides (by default it has one, as with MLflow), and blank lines that are not rows are rejected.
    cells: their limit per request.
    """

    def __init__(self, signature: Signature, *, by_line: bool = False, cells: Cells = UNLIMITED) -> None:
        self._signature = signature
        self._by_line = by_line
        self._cells = cells
        self._fit = Fitter(signature)
        self._fit_params = ParamsFitter(signature)
        self._nan = None if signature.inputs else math.nan  # a model without a signature gets what pandas infers

    def __call__(self, body: bytes, content_type: str | None) -> DecodedRequest:
        """Decode a body of type `content_type` and cast it to the model's signature.

        The forms are those of MLflow 3 (`dataframe_split`, `dataframe_records`, `inputs`, `instances`, documents of
        `messages`, `prompt` or `input`, CSV, Parquet) and of MLflow 1 (a bare `{"columns", "data"}`, a bare list of
        records, `format=pandas-…`, a quoted pandas document).
        Raises BadRequest, which names field and row (rows count from 0), UnsupportedContentType and TooManyCells.
        Source: mlflow/pyfunc/scoring_server of MLflow 3.17 and 1.30.
        """
        content = parse_content_type(content_type)
        if content.media == CSV:
            header = content.header if content.header is not None or self._by_line else True
            frame = parse_csv(content.text(body), self._signature, header, by_line=self._by_line, cells=self._cells)
            return self._without_params(frame, Form.MLFLOW)
        if content.media == PARQUET:
            return self._without_params(parse_parquet(body, self._cells), Form.MLFLOW)
        value = parse_json(body if content.charset == "utf-8" else content.text(body), self._cells, nan=self._nan)
        if content.format == "pandas-split":
            return self._without_params(parse_split(value, _BODY, self._cells))
        if content.format == "pandas-records":
            return self._without_params(parse_records(value, _BODY, self._cells))
        return self._quoted(value) if isinstance(value, str) else self.parsed(value)

    def parsed(self, value: object) -> DecodedRequest:
        """Decode a body of JSON that is already parsed; raises BadRequest."""
        if isinstance(value, list):
            return self._without_params(parse_records(value, _BODY, self._cells))
        if not isinstance(value, dict):
            raise BadRequest(
                f"the body is {shown(value)}, which cannot be read as a table",
                remedy=f"send a JSON object with one of: {', '.join(FORMS)}",
            )
        if not KEYS.isdisjoint(value):
            return parse_document(value, self._fit, self._fit_params)
        if "data" in value and not any(form in value for form in FORMS):
            return self._without_params(parse_split(value, _BODY, self._cells))
        return parse_call(value, self._fit, self._fit_params, self._cells)

    def _quoted(self, text: str) -> DecodedRequest:
        """A JSON string that contains a JSON document, as `requests.post(json=df.to_json())` sends it."""
        try:
            value = parse_json(text, self._cells, nan=self._nan)
        except BadRequest as error:
            raise BadRequest(
                f"the body is a JSON string whose content is not JSON: {error.cause}",
                remedy="send the document itself instead of a string, or the output of DataFrame.to_json",
            ) from error
        labelled = isinstance(value, dict) and value and all(isinstance(column, dict) for column in value.values())
        if isinstance(value, dict) and labelled and not any(form in value for form in FORMS):
            return self._without_params(parse_by_label(value, self._signature, self._cells))
        return self.parsed(value)

    def _without_params(self, frame: Frame, form: Form = Form.LEGACY) -> DecodedRequest:
        return DecodedRequest(self._fit(frame), self._fit_params(None), form)
