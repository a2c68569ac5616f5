"""Conversion of Python values to text: JSON, and CSV cells."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from uuid import UUID


def as_json(value: object) -> str:
    """One line of JSON. NaN and infinity become null, dates ISO 8601, bytes base64; TypeError for other types."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=_plain)


def as_cell(value: object) -> str:
    """One CSV field: text unchanged, None empty, everything else as JSON; NaN and infinity as `NaN` and `Infinity`."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, float):
        return json.dumps(value)
    text = as_json(value)
    # values without a JSON type (dates, bytes) are JSON strings; a CSV field does not need the quotes
    return str(json.loads(text)) if text.startswith('"') else text


def _plain(value: object) -> object:
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value
