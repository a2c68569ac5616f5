"""Messages between the server process and a worker: pickles of types from `core` and the standard library.

Both ends run the same code as the same user: the restriction prevents accidents, not attacks by a hostile model.
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
from likewise.core.isolation import describe
from likewise.core.items import Request, Row, Table
from likewise.core.results import Failed, Ok

E = TypeVar("E")

CLOSE = b""  # requests a worker to shut down; a pickle is never empty
PROTOCOL = 5
# Modules that the other process can import, whatever the model has imported.
_KNOWN = sys.stdlib_module_names | {"likewise"}
# Rebuilt with their constructors: two to four times faster than the default pickling of frozen dataclasses.
_FIELDS = {kind: tuple(f.name for f in fields(kind)) for kind in (Row, Request, Table, Work, Ok, Failed)}


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if (names := _FIELDS.get(kind)) is not None:
            return kind, tuple(getattr(value, name) for name in names)
        module = getattr(value, "__module__", None) or kind.__module__  # classes and functions have their own
        if str(module).partition(".")[0] not in _KNOWN:
            raise pickle.PicklingError(f"{kind.__module__}.{kind.__qualname__} is not a plain value")
        return NotImplemented


def pack(value: object) -> bytes:
    """Pickle `value` for the other process; raises what pickling raises, PicklingError for types from other modules."""
    buffer = io.BytesIO()
    _Pickler(buffer, PROTOCOL).dump(value)
    return buffer.getvalue()


def unpack(message: bytes) -> Any:
    """Restore a value that the other process packed."""
    return pickle.loads(message)  # noqa: S301  from the parent or a child process


def sendable(entries: Sequence[E], refuse: Callable[[str], LikewiseError]) -> list[E | Failed]:
    """`entries`, with those that cannot be packed replaced by `Failed(refuse(why))`."""

    def checked(entry: E) -> E | Failed:
        try:
            pack(entry)
        except BaseException as error:  # noqa: BLE001  a value's own pickling may raise anything
            return Failed(refuse(f"{type(error).__name__}: {describe(error)}"))
        return entry

    return list(map(checked, entries))
