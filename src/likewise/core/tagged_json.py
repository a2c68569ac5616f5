"""JSON text that keeps what JSON lacks: NaN, bytes and dates."""

from __future__ import annotations

import base64
import json
from datetime import date, datetime
from typing import Any

from likewise.core.casts import Nanoseconds, epoch_nanoseconds


def encode(value: object) -> str:
    """A value as JSON text that `decode` restores, NaN, bytes and dates included."""
    return json.dumps(value, ensure_ascii=False, default=_tagged)


def decode(text: str) -> object:
    """The value that `encode` wrote."""
    return json.loads(text, object_hook=_untagged) if _TAG in text else json.loads(text)


def _tagged(value: object) -> object:
    if isinstance(value, (bytes, bytearray)):
        return {_TAG: ["bytes", base64.b64encode(value).decode()]}
    if isinstance(value, Nanoseconds):
        return {_TAG: ["nanoseconds", epoch_nanoseconds(value)]}
    if isinstance(value, date):
        return {_TAG: ["datetime" if isinstance(value, datetime) else "date", value.isoformat()]}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _untagged(record: dict[str, Any]) -> object:
    if (tagged := record.get(_TAG)) is None:
        return record
    kind, text = tagged
    if kind == "bytes":
        return base64.b64decode(text)
    if kind == "nanoseconds":
        return Nanoseconds.since_epoch(text)
    return date.fromisoformat(text) if kind == "date" else datetime.fromisoformat(text)


_TAG = "\ufdd0"  # a code point that Unicode reserves for internal use: no record has it as a name
