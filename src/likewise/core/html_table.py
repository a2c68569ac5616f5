"""Names and values as an HTML table, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def html_table(title: str, facts: Iterable[tuple[str, str]]) -> str:
    """A table with one row per pair of a name and a value; both are escaped."""
    left = 'style="text-align: left; vertical-align: top; overflow-wrap: anywhere"'
    rows = "".join(f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(value)}</td></tr>" for name, value in facts)
    return f"<p><strong>{escape(title)}</strong></p><table>{rows}</table>"
