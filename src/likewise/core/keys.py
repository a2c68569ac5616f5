"""Keys that identify equal input items."""

from __future__ import annotations

import hashlib
import marshal
from typing import Any

from likewise.core.items import Item, Row

_FORMAT = 2  # marshal version, stable since Python 2.5: later versions' output depends on reference counts


def item_key(item: Item) -> bytes:
    """16 bytes that are equal for two items only if their columns, values, value types and params are equal.

    `1`, `1.0` and `true` differ.  Keys are the same in every process and Python version: batch jobs store them on disk.
    """
    parts: Any
    if isinstance(item, Row):
        parts = ("row", item.columns, item.values, dict(item.params or {}), *_rest(item.arrow, item))
    else:
        table, sent = item.table, item.table.sent
        raw_input = None if sent is None else (sent.form, sent.value)
        parts = (
            *("request", table.columns, list(table.rows), dict(item.params or {}), raw_input),
            *_rest(table.arrow, item),
        )
    try:
        raw = marshal.dumps(parts, _FORMAT)
    except ValueError:  # dates
        raw = ascii(parts).encode()  # `repr` depends on each Python version's table of printable characters
    return hashlib.blake2b(raw, digest_size=16).digest()


def _rest(arrow: bytes | None, item: Item) -> tuple[object, ...]:
    """What few items have: the source's types, and empty params."""
    return (arrow, item.params) if arrow is not None or item.params == {} else ()
