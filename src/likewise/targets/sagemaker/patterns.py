"""AWS's patterns, which are Java's, as Python reads them."""

from __future__ import annotations

import re
from functools import cache

# Java's classes, some a little wider, as Python's module `re` has no names for them.
_CLASSES = {
    "ASCII": r"\x00-\x7f",
    "Print": r"\x20-\x7e",
    "Alnum": r"A-Za-z0-9",
    "L": r"\w",
    "N": r"\w",
    "M": r"\u0300-\u036f",
    "Z": r"\x20\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
    "P": r"!-/:-@\[-`{-~\u00a1-\u2bff",
    "S": r"!-/:-@\[-`{-~\u00a1-\u2bff",
}
_OTHER = {r"\z": r"\Z", r"\uD800\uDC00-\uDBFF\uDFFF": "\U00010000-\U0010ffff"}  # UTF-16 has these in two halves


def matches(pattern: str, text: str) -> bool:
    """Whether the whole of `text` is a `pattern` of Java's; one that Python cannot read is not held against it."""
    found = compiled(pattern)
    return found is None or found.fullmatch(text) is not None


@cache
def compiled(pattern: str) -> re.Pattern[str] | None:
    """One of Java's as Python reads it; None for one that Python cannot read."""

    def named(found: re.Match[str]) -> str:
        before = pattern[: found.start()]
        inside = before.count("[") - before.count("\\[") > before.count("]") - before.count("\\]")
        known = _CLASSES.get(found[1], "")
        return known if inside else f"[{known}]"

    read = re.sub(r"\\p\{(\w+)\}", named, pattern)
    for java, python in _OTHER.items():
        read = read.replace(java, python)
    try:
        return re.compile(read)
    except re.error:
        return None
