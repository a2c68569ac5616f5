"""Parsing of JSON text, and rendering of values in error messages."""

from __future__ import annotations

import json
import math

import orjson

from likewise.core.errors import BadRequest

BOM = b"\xef\xbb\xbf"
_SHOWN = 60
_LITERALS = {"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf}  # pandas writes missing values as NaN


def parse_json(body: bytes | str) -> object:
    """Parse `body` as JSON; raises BadRequest, with line and column, if it is not valid.

    Python's `NaN` (read as null) and `Infinity` are accepted, because `json.dumps`, and thus MLflow's clients, write
    them.  Numbers that overflow, lone surrogates and more than 1,024 levels of nesting are rejected.
    """
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    raw = raw.removeprefix(BOM)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if b"NaN" in raw or b"Infinity" in raw:
            return _parse_with_literals(raw, error)
        raise _not_json(error) from error


def _parse_with_literals(raw: bytes, first: orjson.JSONDecodeError) -> object:
    try:
        value = json.loads(raw.decode(), parse_constant=_LITERALS.__getitem__, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()  # raises for a lone surrogate
    except BadRequest:
        raise
    except json.JSONDecodeError as error:
        raise _not_json(error) from error
    except (ValueError, RecursionError) as error:
        raise _not_json(first) from error
    return value


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise BadRequest(f"the number {text[:_SHOWN]} is too large", remedy="send a number within ±1.8e308")
    return number


def _not_json(error: json.JSONDecodeError) -> BadRequest:
    where = f"line {error.lineno}, column {error.colno}"
    return BadRequest(f"the body is not valid JSON: {error.msg} ({where})", remedy="send one JSON document in UTF-8")


def shown(value: object) -> str:
    """A value for an error message: its JSON, truncated, and its JSON type."""
    kind = _KINDS.get(type(value), type(value).__name__)
    if isinstance(value, (list, dict)):
        return f"{kind} of {len(value)}"
    if value is None:
        return "null"
    text = json.dumps(value) if isinstance(value, (str, bool)) else str(value)
    return f"{text[:_SHOWN]}{'…' if len(text) > _SHOWN else ''} ({kind})"


_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
}
