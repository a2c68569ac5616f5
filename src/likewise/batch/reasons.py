"""Why rows were quarantined: each reason with its number of rows and its first examples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

REASONS = 10  # that are kept; the rows of further ones are only counted
EXAMPLES = 3  # of each reason
CHARACTERS = 300  # of an example's cause
_VARIES = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\d+(?:\.\d+)?")

Reason = Mapping[str, Any]
"""code, remedy, rows (their number), and examples, each with file, row, line and cause."""


def add(reasons: Sequence[Reason], entries: Iterable[Mapping[str, Any]]) -> list[Reason]:
    """`reasons`, with those of further quarantined rows.  entries: as `quarantine.entries` returns them."""
    known = {_key(reason["code"], reason["examples"][0]["cause"]): dict(reason) for reason in reasons}
    for entry in entries:
        example = {name: entry[name] for name in ("file", "row", "line")} | {"cause": entry["cause"][:CHARACTERS]}
        key = _key(entry["code"], example["cause"])
        if (same := known.get(key)) is not None:
            same["rows"] += 1
            same["examples"] = [*same["examples"], example][:EXAMPLES]
        elif len(known) < REASONS:
            known[key] = {"code": entry["code"], "remedy": entry["remedy"], "rows": 1, "examples": [example]}
    return list(known.values())


def described(reasons: Sequence[Reason], quarantined: int) -> list[str]:
    """A line for each reason, the most frequent first.  quarantined: the number of all such rows."""
    frequent = sorted(reasons, key=lambda reason: -reason["rows"])
    lines = [f"{_rows(reason['rows'])}: {reason['code']}: {_example(reason)}" for reason in frequent]
    rest = quarantined - sum(reason["rows"] for reason in reasons)
    return [*lines, *([f"{_rows(rest)}: other reasons"] if rest else [])]


def _key(code: str, cause: str) -> tuple[str, str]:
    """Equal for errors that differ only in numbers and quoted names."""
    return code, _VARIES.sub("…", cause)


def _example(reason: Reason) -> str:
    first = reason["examples"][0]
    where = f"{first['file']} row {first['row']}" + (f", line {first['line']}" if first["line"] else "")
    others = [f"row {each['row']}" for each in reason["examples"][1:]]
    return f"{first['cause']} ({'; '.join([where, *others])}{'; …' if reason['rows'] > EXAMPLES else ''})"


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"
