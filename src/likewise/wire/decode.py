"""The front door of every request body."""

from __future__ import annotations

from likewise.core.errors import BadRequest
from likewise.core.signature import Signature
from likewise.wire.call import Call, Form
from likewise.wire.content import CSV, parse_content_type
from likewise.wire.csvtext import parse_csv
from likewise.wire.frame import Frame, fit
from likewise.wire.jsontext import parse_json, shown
from likewise.wire.mlflow import FORMS, parse_call
from likewise.wire.pandas_json import parse_by_label, parse_records, parse_split

_BODY = "the body"


def decode(body: bytes, content_type: str | None, signature: Signature) -> Call:
    """Read a request body as `content_type` says, fitted to the model's `signature`.

    The forms are those of MLflow 3 (`dataframe_split`, `dataframe_records`, `inputs`, `instances`, CSV) and of
    MLflow 1 (a bare `{"columns", "data"}`, a bare list of records, `format=pandas-…`, a quoted pandas document).
    Raises BadRequest, which names field and row (rows count from 0), and UnsupportedContentType; nothing else.
    Source: mlflow/pyfunc/scoring_server of MLflow 3.17 and 1.30.
    """
    content = parse_content_type(content_type)
    if content.media == CSV:
        return Call(fit(parse_csv(content.text(body), signature), signature))
    value = parse_json(body if content.charset == "utf-8" else content.text(body))
    if content.format == "pandas-split":
        return _legacy(parse_split(value, _BODY), signature)
    if content.format == "pandas-records":
        return _legacy(parse_records(value, _BODY), signature)
    return _quoted(value, signature) if isinstance(value, str) else _plain(value, signature)


def _plain(value: object, signature: Signature) -> Call:
    if isinstance(value, list):
        return _legacy(parse_records(value, _BODY), signature)
    if isinstance(value, dict):
        if "data" in value and not any(form in value for form in FORMS):
            return _legacy(parse_split(value, _BODY), signature)
        return parse_call(value, signature)
    raise BadRequest(
        f"the body is {shown(value)}, and no table can be read from that",
        remedy=f"send a JSON object with one of: {', '.join(FORMS)}",
    )


def _quoted(text: str, signature: Signature) -> Call:
    """A JSON string that holds a JSON document, as `requests.post(json=df.to_json())` sends it."""
    try:
        value = parse_json(text)
    except BadRequest as error:
        raise BadRequest(
            f"the body is a JSON string, and what it holds is not JSON: {error.cause}",
            remedy="send the document itself and not as a string; or what DataFrame.to_json returns",
        ) from error
    labelled = isinstance(value, dict) and value and all(isinstance(column, dict) for column in value.values())
    if isinstance(value, dict) and labelled and not any(form in value for form in FORMS):
        return _legacy(parse_by_label(value, signature), signature)
    return _plain(value, signature)


def _legacy(frame: Frame, signature: Signature) -> Call:
    return Call(fit(frame, signature), form=Form.LEGACY)
