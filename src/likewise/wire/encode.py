"""Encoding of predictions as response bodies."""

from __future__ import annotations

import json

import orjson

from likewise.core.errors import ModelFailed
from likewise.core.json_values import finite, json_form
from likewise.wire.call import Form

_OPTIONS = orjson.OPT_NON_STR_KEYS
_ROWS = 1000  # encoded by one call of C, during which no other thread of the process can run


def encode(form: Form, predictions: object) -> bytes:
    """The response body as JSON: `{"predictions": …}`, or bare for MLflow 1 and documents.

    NaN and infinity become null, bytes base64, dates ISO 8601.  Raises ModelFailed for values without a JSON form.
    """
    if isinstance(predictions, list) and len(predictions) > _ROWS:
        parts = (_dumped(predictions[start : start + _ROWS])[1:-1] for start in range(0, len(predictions), _ROWS))
        listed = b"[" + b",".join(parts) + b"]"
        return b'{"predictions":' + listed + b"}" if form is Form.MLFLOW else listed
    return _dumped({"predictions": predictions} if form is Form.MLFLOW else predictions)


def _dumped(value: object) -> bytes:
    """The value as JSON; without orjson if it has integers over 64 bits or deeper lists, which MLflow supports."""
    try:
        return orjson.dumps(value, default=json_form, option=_OPTIONS)
    except TypeError:  # orjson's JSONEncodeError is one
        return _slowly(value)


def _slowly(response: object) -> bytes:
    try:
        return json.dumps(finite(response), ensure_ascii=False, separators=(",", ":"), default=json_form).encode()
    except UnicodeEncodeError as error:
        cause = f"a string contains the lone surrogate U+{ord(error.object[error.start]):04X}"
        raise _unwritable(cause, "make the model return valid Unicode text") from error
    except RecursionError as error:
        raise _unwritable("they are nested too deeply", "make the model return less deeply nested values") from error
    except (TypeError, ValueError) as error:
        raise _unwritable(str(error), "make the model return plain values: text, numbers, lists, records") from error


def _unwritable(cause: str, remedy: str) -> ModelFailed:
    return ModelFailed(f"the model's predictions cannot be written as JSON: {cause}", remedy=remedy)
