"""What goes between the server's process and a worker's: pickles of the core's types and the standard library's.

Both ends run the same code as the same user: this keeps surprises out, it is no wall against a hostile model.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from likewise.core.engine import Work
from likewise.core.errors import LikewiseError
from likewise.core.items import Request, Row, Table
from likewise.core.results import Failed, Ok

E = TypeVar("E")

CLOSE = b""  # ends a worker politely; no pickle is empty
PROTOCOL = 5
# What the other process can load whatever the model imported.
_KNOWN = sys.stdlib_module_names | {"likewise"}
# Rebuilt by their constructors: two to four times faster than the state that frozen dataclasses pickle.
_FIELDS = {kind: tuple(f.name for f in fields(kind)) for kind in (Row, Request, Table, Work, Ok, Failed)}


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if (names := _FIELDS.get(kind)) is not None:
            return kind, tuple(getattr(value, name) for name in names)
        module = getattr(value, "__module__", None) or kind.__module__  # of a class or a function: its own
        if str(module).partition(".")[0] not in _KNOWN:
            raise pickle.PicklingError(f"{kind.__module__}.{kind.__qualname__} is no plain value")
        return NotImplemented


def pack(value: object) -> bytes:
    """`value` for the other process; raises whatever pickling raises where it is none of the types above."""
    buffer = io.BytesIO()
    _Pickler(buffer, PROTOCOL).dump(value)
    return buffer.getvalue()


def unpack(message: bytes) -> Any:
    """What the other process packed."""
    return pickle.loads(message)  # noqa: S301  from the process that this one started, or that started this one


def sendable(entries: Sequence[E], refuse: Callable[[str], LikewiseError]) -> list[E | Failed]:
    """`entries`, those that cannot be packed replaced by `Failed(refuse(why))`."""

    def checked(entry: E) -> E | Failed:
        try:
            pack(entry)
        except Exception as error:  # noqa: BLE001  a value's own pickling may raise anything
            return Failed(refuse(f"{type(error).__name__}: {str(error)[:300]}"))
        return entry

    return list(map(checked, entries))
