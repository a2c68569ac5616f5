"""AWS's patterns, which are Java regular expressions, compiled by Python."""

from __future__ import annotations

import re
from functools import cache

# Java's character classes, some a little wider, because Python's `re` has no names for them.
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
_OTHER = {r"\z": r"\Z", r"\uD800\uDC00-\uDBFF\uDFFF": "\U00010000-\U0010ffff"}  # surrogate pairs in UTF-16


def matches(pattern: str, text: str) -> bool:
    """Whether all of `text` matches the Java pattern; True if Python cannot compile the pattern."""
    regex = compiled(pattern)
    return regex is None or regex.fullmatch(text) is not None


@cache
def compiled(pattern: str) -> re.Pattern[str] | None:
    """The Java pattern compiled by Python; None if that is not possible."""

    def expanded(match: re.Match[str]) -> str:
        before = pattern[: match.start()]
        inside = before.count("[") - before.count("\\[") > before.count("]") - before.count("\\]")
        known = _CLASSES.get(match[1], "")
        return known if inside else f"[{known}]"

    translated = re.sub(r"\\p\{(\w+)\}", expanded, pattern)
    for java, python in _OTHER.items():
        translated = translated.replace(java, python)
    try:
        return re.compile(translated)
    except re.error:
        return None
