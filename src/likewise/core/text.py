"""Checks of text."""

from __future__ import annotations

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
