"""Predictions to the bytes of an answer."""

from __future__ import annotations

import base64

import orjson

from likewise.core.errors import ModelFailed
from likewise.wire.call import Form

JSON = "application/json"


def encode(form: Form, predictions: object) -> bytes:
    """The answer in its asker's form, as JSON: `{"predictions": …}`, or bare for MLflow 1.

    NaN and infinity leave as null, bytes as base64, dates as ISO 8601.  ModelFailed for what JSON cannot hold.
    """
    answer = predictions if form is Form.LEGACY else {"predictions": predictions}
    try:
        return orjson.dumps(answer, default=_default, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:  # orjson's JSONEncodeError is one
        raise ModelFailed(
            f"the model's predictions cannot be written as JSON: {error}",
            remedy="let the model return text in valid Unicode, numbers within 64 bits, and plain values",
        ) from error


def _default(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"a value of type {type(value).__name__}")
