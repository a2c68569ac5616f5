"""The JSON form of Python values that JSON lacks, the same in responses and in the outputs of jobs."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from uuid import UUID


def json_form(value: object) -> object:
    """For `json.dumps(default=…)`: base64 of bytes, ISO 8601 of dates; raises TypeError for other types."""
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if hasattr(value, "tolist"):  # of numpy
        return value.tolist()
    if hasattr(value, "toarray"):  # of scipy
        return value.toarray().tolist()
    if hasattr(value, "model_dump"):  # of pydantic
        return value.model_dump()
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form")


def finite(value: object) -> object:
    """The value with null instead of NaN and infinity, also in lists and records."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(element) for element in value]
    return value
