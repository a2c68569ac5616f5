"""Which names a pickle would import, found with the standard library's unpickler, to which everything is a `_Thing`.

Nothing is imported or called.  joblib and dill build upon `pickle._Unpickler` too.  Where Python's other unpickler,
which is written in C, reads further, this one does too.
"""

from __future__ import annotations

import math
import pickle
import re
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

_Unpickler: Any = pickle._Unpickler
_CALLS, _ADD = pickle.REDUCE + pickle.NEWOBJ, pickle.APPENDS + pickle.ADDITEMS
_LINES = pickle.INT + pickle.LONG + pickle.FLOAT + pickle.PERSID
_EMPTY = pickle.EMPTY_DICT + pickle.EMPTY_LIST + pickle.EMPTY_SET + pickle.NEXT_BUFFER
_COLLECTED = pickle.DICT + pickle.LIST + pickle.FROZENSET
ITEM = 5000  # the work for a name, or a member of an archive
CHUNK = 1 << 20
LONGEST = 4096  # bytes of a string that are kept: names are shorter
ARRAY = re.compile(r"[biufcmM]\d{1,2}|[SUV]\d{1,12}")  # types without objects, as joblib names them


class NotClear(Exception):
    """What a loader would read cannot be determined, or a limit of the scan is reached."""


@dataclass
class Limits:
    """What one scan may still do: bytes unpacked; reads by unpicklers, with names and members; levels of archives."""

    unpacked: int = 4 << 30
    work: int = 100_000_000
    depth: int = 5

    def take(self, what: str, amount: int) -> None:
        """Use up some of a limit; raises NotClear if nothing is left."""
        setattr(self, what, getattr(self, what) - amount)
        if getattr(self, what) < 0:
            raise NotClear(f"the limit on {what} is reached")


class Name(NamedTuple):
    """A class or function that a file names."""

    module: str
    name: str


COMPUTED = Name("", "(computed while loading)")
WRAPPER = Name("joblib.numpy_pickle", "NumpyArrayWrapper")


class Reader:
    """A stream for an unpickler, which gets no long string: a hostile length reserves no memory.  packed: it counts."""

    def __init__(self, stream: IO[bytes], limits: Limits, *, packed: bool) -> None:
        self.stream, self.limits, self.packed = stream, limits, packed
        self.position = self.frame_end = 0

    def seek(self, position: int) -> None:
        self.stream.seek(position)
        self.position, self.frame_end = position, 0

    def take(self, size: int) -> bytes:
        """The next bytes, `size` or fewer at the end."""
        return self._counted(self.stream.read(size))

    def read(self, size: int) -> bytes:
        self.limits.take("work", 1)
        if size <= LONGEST:
            return self.take(size)
        while size > 0 and (data := self.take(min(size, CHUNK))):
            size -= len(data)
        return b""

    def readline(self) -> bytes:
        self.limits.take("work", 1)
        start = self.position
        line = self._counted(self.stream.readline(CHUNK))
        if len(line) == CHUNK or start < self.frame_end < self.position:  # C reads only what is after the frame
            raise NotClear("a line is too long or crosses the end of a frame")
        return line

    def _counted(self, data: bytes) -> bytes:
        self.limits.take("unpacked", len(data) * self.packed)
        self.position += len(data)
        return data


@dataclass(slots=True, eq=False)
class _Thing:
    """Stands for every class, function and object, and does nothing.

    origin: the name, or what was called to make it.  items: what was stored under keys; None is any unknown key.
    """

    origin: object = None
    arguments: Any = ()
    items: dict[str | None, Any] = field(default_factory=dict)
    state: Any = None

    def __setitem__(self, key: object, value: object) -> None:
        self.items[key if isinstance(key, str) else None] = value


class Names(_Unpickler):  # type: ignore[misc]
    """Reads one pickle's names into `found`.  arrays: skip arrays as joblib does; Python reads them as operations."""

    def __init__(self, reader: Reader, found: dict[Name, None], *, arrays: bool) -> None:
        super().__init__(reader, encoding="latin-1")
        self.reader, self.found, self.arrays = reader, found, arrays

    def load(self) -> None:
        super().load()
        self._outside_frame()

    def _outside_frame(self) -> None:
        if self.reader.position < self.reader.frame_end:  # unpicklers differ in where they go on
            raise NotClear("it ends, has an array or starts a frame inside of a frame")

    def find_class(self, module: str, name: str) -> _Thing:
        if (found := Name(module, name)) not in self.found:
            self.reader.limits.take("work", ITEM)
            self.found[found] = None
        return _Thing(found)

    def get_extension(self, _: int) -> None:
        self.append(self.find_class(*COMPUTED))

    def _name_from_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        known = isinstance(name, str) and isinstance(module, str)
        self.append(self.find_class(*((module, name) if known else COMPUTED)))

    def _frame(self) -> None:
        length = int.from_bytes(self.read(8), "little")
        self._outside_frame()
        self.reader.frame_end = self.reader.position + length

    def _index(self) -> int:
        return int(self.readline().partition(b"\0")[0])  # as in C

    def _instantiate(self, kind: Any, arguments: Any) -> None:
        if not isinstance(kind, _Thing):
            raise TypeError("what is called is not a class or function")
        if isinstance(arguments, tuple | list) and any(getattr(each, "origin", None) == WRAPPER for each in arguments):
            raise NotClear("arrays in joblib's format are used in an unknown way")
        self.append(_Thing(kind, arguments))

    def _build(self) -> None:
        state, thing = self.stack.pop(), self.stack[-1]
        if isinstance(thing, _Thing):
            thing.state = state
            if self.arrays and getattr(thing.origin, "origin", None) == WRAPPER:
                self._outside_frame()
                self._skip_array(getattr(state, "items", {}))

    def _skip_array(self, array: dict[str | None, Any]) -> None:
        """Skip what joblib stores after a wrapper's state: the array's bytes, or a pickle of its objects."""
        shape, padded = array.get("shape") or (), array.get("numpy_array_alignment_bytes") is not None
        match None if None in array else array.get("dtype"):
            case _Thing(
                _Thing(("numpy", "dtype")), (str(kind), *_), _, (_, _, None, _, _, int(size), _, int(flags), *_)
            ):
                if kind == "O8" and flags & 1:
                    return Names(self.reader, self.found, arrays=False).load()
                clear = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape) and not flags & 1
                if ARRAY.fullmatch(kind) and clear and (size >= 0 if kind[0] in "SUV" else size == -1):
                    size = math.prod(shape) * (int(kind[1:]) if size == -1 else size)
                    end = self.reader.position + size + (1 + self.read(1)[0] if padded else 0)
                    self.read(end - self.reader.position)
                    if self.reader.position == end:
                        return None
        raise NotClear("the type, shape or end of an array in joblib's format is not clear")

    dispatch = {  # noqa: RUF012  as in the base class
        **_Unpickler.dispatch,
        pickle.FRAME[0]: _frame,
        pickle.STACK_GLOBAL[0]: _name_from_stack,
        pickle.BYTEARRAY8[0]: _Unpickler.load_binbytes8,
        pickle.GET[0]: lambda self: self.append(self.memo[self._index()]),
        pickle.PUT[0]: lambda self: self.memo.update({self._index(): self.stack[-1]}),
        pickle.BUILD[0]: _build,
        **dict.fromkeys(_CALLS, lambda self: self._instantiate(arguments=self.stack.pop(), kind=self.stack.pop())),
        pickle.NEWOBJ_EX[0]: lambda self: (self.stack.pop(), self.dispatch[pickle.NEWOBJ[0]](self)),
        pickle.APPEND[0]: lambda self: (self.stack.pop(), self.append(self.stack.pop())),
        **dict.fromkeys(_ADD, lambda self: (self.pop_mark(), self.append(self.stack.pop()))),
        pickle.BINPERSID[0]: lambda self: self.append(_Thing(self.stack.pop())),
        pickle.READONLY_BUFFER[0]: lambda self: self.append(self.stack.pop()),
        **dict.fromkeys(_LINES, lambda self: self.append(_Thing(self.readline()))),
        **dict.fromkeys(_EMPTY, lambda self: self.append(_Thing())),
        **dict.fromkeys(_COLLECTED, lambda self: (self.pop_mark(), self.append(_Thing()))),
    }


def names_in(reader: Reader, start: int, *, arrays: bool) -> tuple[dict[Name, None], Exception | None]:
    """The names in pickles that follow each other, and why the last could not be read, if it is one and no data."""
    found, first = dict[Name, None](), True
    reader.seek(start)
    while True:
        before = len(found)
        try:
            Names(reader, found, arrays=arrays).load()
        except Exception as error:  # noqa: BLE001  the content is hostile
            return found, error if first or len(found) > before or isinstance(error, NotClear) else None
        first = False
