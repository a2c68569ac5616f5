"""Predictions to the bytes of an answer."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import date

import orjson

from likewise.core.errors import ModelFailed
from likewise.wire.call import Form

_OPTIONS = orjson.OPT_NON_STR_KEYS


def encode(form: Form, predictions: object) -> bytes:
    """The answer in its asker's form, as JSON: `{"predictions": …}`, or bare for MLflow 1 and for a document.

    NaN and infinity leave as null, bytes as base64, dates as ISO 8601.  ModelFailed for what JSON cannot hold.
    """
    answer = {"predictions": predictions} if form is Form.MLFLOW else predictions
    try:
        return orjson.dumps(answer, default=plain, option=_OPTIONS)
    except TypeError:  # orjson's JSONEncodeError is one
        return _dumped(answer)


def _dumped(answer: object) -> bytes:
    """The same by the standard library, which writes integers wider than 64 bits and deeper lists, as MLflow does."""
    try:
        return json.dumps(_finite(answer), ensure_ascii=False, separators=(",", ":"), default=plain).encode()
    except UnicodeEncodeError as error:
        cause = f"a text holds the lone surrogate U+{ord(error.object[error.start]):04X}, which is no character"
        raise _unwritable(cause, "let the model return text in valid Unicode") from error
    except RecursionError as error:
        raise _unwritable("they are nested too deep", "let the model return flatter values") from error
    except (TypeError, ValueError) as error:
        raise _unwritable(str(error), "let the model return plain values: text, numbers, lists, records") from error


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(element) for element in value]
    return value


def plain(value: object) -> str:
    """What JSON has no type for: bytes as base64, dates as ISO 8601; TypeError for anything else."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, date):  # a datetime is one; orjson writes them itself
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form")


def _unwritable(cause: str, remedy: str) -> ModelFailed:
    return ModelFailed(f"the model's predictions cannot be written as JSON: {cause}", remedy=remedy)
