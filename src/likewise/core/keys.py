"""What makes two items the same question."""

from __future__ import annotations

import hashlib
import marshal
from typing import Any

from likewise.core.items import Item, Row

_FORMAT = 2  # of marshal, the same since Python 2.5: later ones write a value by how often it is referenced


def item_key(item: Item) -> bytes:
    """16 bytes that two items share only where columns, values, their types and params are equal.

    `1`, `1.0` and `true` differ.  The same in every process and on every Python: batch jobs keep it on disk.
    """
    parts: Any
    if isinstance(item, Row):
        parts = ("row", item.columns, item.values, dict(item.params))
    else:
        table, sent = item.table, item.table.sent
        whole = None if sent is None else (sent.form, sent.value)
        parts = ("request", table.columns, list(table.rows), dict(item.params), whole)
    try:
        raw = marshal.dumps(parts, _FORMAT)
    except ValueError:  # dates
        raw = ascii(parts).encode()  # `repr` goes by each Python's own table of what can be printed
    return hashlib.blake2b(raw, digest_size=16).digest()
