"""Content types of request bodies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from likewise.core.errors import BadRequest, UnsupportedContentType
from likewise.core.header import CHOICES

JSON = "application/json"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
FORMATS = ("pandas-split", "pandas-records")
CHARSETS = frozenset(
    {"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "latin1", "windows-1252", "utf-16"}
)

_SEND = f"send Content-Type: {JSON}, {CSV} or {PARQUET}"


@dataclass(frozen=True, slots=True)
class Content:
    """A parsed Content-Type.

    media: JSON, CSV or PARQUET.  charset: one of CHARSETS.  format: one of FORMATS, which only MLflow 1 used, or None.
    header: whether the first line of a CSV contains the column names, None if the header does not say.
    """

    media: str
    charset: str = "utf-8"
    format: str | None = None
    header: bool | None = None

    def text(self, body: bytes) -> str:
        """Decode the body, without a byte order mark; raises BadRequest if it is not valid in its charset."""
        try:
            return body.decode(self.charset).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise BadRequest(
                f"the body is not valid {self.charset.upper()}: {error.reason} at byte {error.start}",
                remedy=f"encode the body as {self.charset.upper()}, or specify its charset in Content-Type",
            ) from error


@lru_cache(maxsize=64)
def parse_content_type(header: str | None) -> Content:
    """Parse a Content-Type header; the default is JSON.  Raises UnsupportedContentType.

    Sources: RFC 9110, 8.3.1; RFC 4180, 3 (`text/csv; header=absent`); `format` is MLflow 1's
    (`application/json; format=pandas-split`).
    """
    media, *rest = (header or JSON).split(";")
    media = media.strip().lower() or JSON
    pairs = (part.partition("=") for part in rest)
    params = {key.strip().lower(): value.strip().strip('"').lower() for key, _, value in pairs}
    if media not in (JSON, CSV, PARQUET):
        raise UnsupportedContentType(f"the content type {media!r} is not supported", remedy=_SEND)
    charset = params.get("charset", "utf-8")
    if charset not in CHARSETS:
        raise UnsupportedContentType(f"the charset {charset!r} is not supported", remedy="send the body as UTF-8")
    form = params.get("format")
    if form is not None and (media != JSON or form not in FORMATS):
        raise UnsupportedContentType(
            f"the format {form!r} of {media} is not supported", remedy=f"use one of: {', '.join(FORMATS)}; or none"
        )
    declared = params.get("header") if media == CSV else None
    if declared not in CHOICES:
        raise UnsupportedContentType(
            f"header={declared} of {media} is not supported", remedy="send header=present, header=absent, or neither"
        )
    return Content(media, charset, form, CHOICES[declared])
