"""Parsing of JSON text, and rendering of values in error messages."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

import orjson

from likewise.core.errors import BadRequest
from likewise.wire.cells import Cells

BOM = b"\xef\xbb\xbf"
SHOWN = 60  # characters of a name or a value shown in error messages
COMPARED = 1000  # names among which a similar one is looked for
UNLIMITED = Cells()
_INFINITE = {"Infinity": math.inf, "-Infinity": -math.inf}


def parse_json(body: bytes | str, cells: Cells = UNLIMITED, *, nan: float | None = None) -> object:
    """Parse `body` as JSON; raises BadRequest, with line and column, if it is not valid, and TooManyCells.

    Python's `NaN` and `Infinity` are accepted, because `json.dumps`, and thus MLflow's clients, write them.  nan: how
    NaN is read, by default as null, because pandas writes missing values of every type as NaN.  Numbers that overflow,
    lone surrogates and more than 1,024 levels of nesting are rejected.
    """
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    raw = raw.removeprefix(BOM)
    cells.json(raw)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if b"NaN" in raw or b"Infinity" in raw:
            return _parse_with_literals(raw, error, nan)
        raise _not_json(error) from error


def _parse_with_literals(raw: bytes, first: orjson.JSONDecodeError, nan: float | None) -> object:
    literals = {"NaN": nan, **_INFINITE}
    try:
        value = json.loads(raw.decode(), parse_constant=literals.__getitem__, parse_float=_finite, parse_int=_whole)
        if b"\\ud" in raw or b"\\uD" in raw:
            json.dumps(value, ensure_ascii=False).encode()  # raises for a lone surrogate
    except BadRequest:
        raise
    except json.JSONDecodeError as error:
        raise _not_json(error) from error
    except (ValueError, RecursionError) as error:
        raise _not_json(first) from error
    return value


def _whole(text: str) -> int:
    """The same as `int`, but a Python function: others can run while many of them are parsed, which C code prevents."""
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise BadRequest(f"the number {text[:SHOWN]} is too large", remedy="send a number within ±1.8e308")
    return number


def _not_json(error: json.JSONDecodeError) -> BadRequest:
    where = f"line {error.lineno}, column {error.colno}"
    return BadRequest(
        f"the body is not valid JSON: {error.msg} ({where})",
        remedy="send one JSON document in UTF-8; of a file in another format, its content type, such as text/csv",
    )


def shown(value: object) -> str:
    """A value for an error message: its JSON, truncated, and its JSON type."""
    kind = _KINDS.get(type(value), type(value).__name__)
    if isinstance(value, (list, dict)):
        return f"{kind} of {len(value)}"
    if value is None:
        return "null"
    if isinstance(value, str):
        value = value[: SHOWN + 1]
    text = json.dumps(value) if isinstance(value, (str, bool)) else str(value)
    return f"{text[:SHOWN]}{'…' if len(text) > SHOWN else ''} ({kind})"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar of the first `names`, if any is: comparing with all of a hostile request would take minutes."""
    return next(iter(get_close_matches(name[:SHOWN], islice(names, COMPARED), n=1)), None)


_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
}
