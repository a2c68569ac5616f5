"""URIs without secrets, as they may be stored, shown and sent."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

AZURE = ("wasb", "wasbs", "abfs", "abfss")  # the part before the @ is the container's name, not a user
_AZURE_NAME = rf"(?:{'|'.join(AZURE)})"
_USER = re.compile(rf"(?<![\w+.-])(?!{_AZURE_NAME}://)([A-Za-z][\w+.-]*://)[^/?#\s@'\"<>]*(?:@[^/?#\s@'\"<>]*)*@")
_AZURE_PASSWORD = re.compile(rf"(?<![\w+.-])({_AZURE_NAME}://[^/:?#\s@]*):[^/?#\s]*@")
_QUERY = re.compile(r"(?<![\w+.-])([A-Za-z][\w+.-]*://[^/?#\s'\"<>]+[^?#\s'\"<>]*)[?#][^\s'\"<>]*")


def without_secrets(uri: str) -> str:
    """`uri` without user information, query and fragment, which may contain passwords, tokens and signatures.

    Only for URIs that name a host: `models:/…`, `runs:/…`, `sqlite:///…` and paths are returned unchanged.
    """
    try:
        host = urlsplit(uri).netloc
    except ValueError:
        return redacted(uri)
    return redacted(uri) if host else uri


def redacted(text: str) -> str:
    """`text` with the secrets removed from every URI in it, as `without_secrets` does."""
    if "://" not in text:
        return text
    text = _AZURE_PASSWORD.sub(r"\1@", _USER.sub(r"\1", text))
    return _QUERY.sub(r"\1", text)
