"""Checks of text."""

from __future__ import annotations

import json

from likewise.core.errors import LikewiseError, RowRefused


def unicode_fault(text: str, what: str) -> LikewiseError | None:
    """The error if `text` cannot be encoded as UTF-8, else None. what: names the text in the message.

    Surrogates U+DC80 to U+DCFF stand for undecodable bytes.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        invalid = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"lone surrogate U+{code:04X}"
        return RowRefused(
            f"{what} is not valid Unicode: {invalid} at character {error.start}",
            remedy="encode the text as UTF-8, or replace the invalid characters",
        )
    return None


def why_not_text(value: object) -> str | None:
    """Why `value` is not a text that a model can take; None if it is."""
    if value is None or (isinstance(value, float) and value != value):  # NaN: a missing string in pandas
        return "text is null"
    if not isinstance(value, str):
        return f"text must be a string, got {type(value).__name__}"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"text is not valid Unicode: lone surrogate at position {error.start}"
    return None


def json_document(text: str) -> object:
    """The JSON object or list in the text; None if the text is neither."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
