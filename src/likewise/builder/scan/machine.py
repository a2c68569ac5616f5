"""Reads a pickle operation by operation, without importing or calling anything.

The operations come from the standard library's disassembler.  fickling's own interpreter is not enough here: it gives
up, and forgets all names, at operations that ordinary models contain (bytearrays, list subclasses, a million strings).
"""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from mmap import mmap
from pickletools import OpcodeInfo, genops, stackslice
from typing import IO, Any, NamedTuple, cast

from likewise.builder.scan.arrays import Unclear, gap, holds_objects

Readable = io.BytesIO | mmap
LONGEST = 1000  # characters of a string that are kept: names are shorter
MOST_KEYS = 64  # of a dictionary that are kept: the state of a wrapped array has 7
EMBEDDED = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04", b"\x1f\x8b", b"x\x9c", b"x\xda")
EMBEDDED_TEXT = tuple(head.decode("latin-1") for head in EMBEDDED)  # protocols 0 to 2 store bytes as text


class Name(NamedTuple):
    """A class or function that the pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}" if self.module else self.name


COMPUTED = Name("", "(computed while loading)")


class Unknown:
    """A value that does not matter for the scan."""


UNKNOWN = Unknown()


@dataclass(slots=True)
class Made:
    """The result of calling `by`, with the arguments and the state, if they are known."""

    by: object
    arguments: object
    state: object = None


class Damaged(Exception):
    """The pickle cannot be read further.

    certain: Python's own unpickler stops here too.  ended: because there are no more bytes.  limit: because a limit of
    the scan is reached.
    """

    def __init__(self, reason: str, *, certain: bool = True, ended: bool = False, limit: bool = False) -> None:
        super().__init__(reason)
        self.certain, self.ended, self.limit = (certain or ended) and not limit, ended, limit


@dataclass
class Budget:
    """How many operations may still be read, and how many different names found, in all pickles together."""

    operations: int
    names: int


@dataclass
class Walk:
    """What one pickle contains.

    end: the position after it, or of the operation that could not be read.  embedded: byte strings that may be pickles
    or archives, with their positions.  gaps: start and end of the arrays that joblib stores between the operations.
    """

    start: int
    end: int = 0
    operations: int = 0
    uses: Counter[Name] = field(default_factory=Counter)
    calls: Counter[Name] = field(default_factory=Counter)
    embedded: list[tuple[int, bytes]] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    error: Damaged | None = None


def walk(stream: Readable, start: int, budget: Budget, *, joblib: bool = True) -> Walk:
    """Read the pickle that starts at `start`; never raises for any content.

    joblib: skip the bytes of arrays, as joblib's unpickler does; Python's would read them as operations.
    """
    machine = _Machine(stream, Walk(start), budget, joblib)
    stream.seek(start)
    try:
        machine.run()
    except Damaged as error:
        machine.found.error = error
    except (ValueError, OverflowError, IndexError, TypeError, struct.error) as error:
        text = str(error) or type(error).__name__
        ended = any(words in text for words in ("exhausted", "remain", "not enough data"))
        machine.found.error = Damaged(text, certain="unknown" in text, ended=ended)
    return machine.found


class _Machine:
    """Python's unpickler, on names instead of objects."""

    def __init__(self, stream: Readable, found: Walk, budget: Budget, joblib: bool) -> None:
        self.stream, self.found, self.budget, self.joblib = stream, found, budget, joblib
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the parts of the stack below each mark
        self.memo: dict[int, Any] = {}
        self.frame_end = 0

    def run(self) -> None:
        for info, argument, position in genops(cast("IO[bytes]", self.stream)):
            self.found.end = position or 0
            self.found.operations += 1
            self.budget.operations -= 1
            if self.budget.operations < 0:
                raise Damaged("the limit on operations is reached", limit=True)
            if info.name in CONSTANTS:
                self.stack.append(UNKNOWN if _too_long(argument) else argument)
            elif (operation := OPERATIONS.get(info.name)) is not None:
                operation(self, argument)
            else:
                self._other(info)
        self.found.end = self.stream.tell()
        if self.found.end < self.frame_end:  # some unpicklers go on after the frame, others after the pickle
            raise Damaged("it ends before its frame does", certain=False)

    def pop(self) -> Any:
        if not self.stack:
            raise Damaged("a value is missing")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        if not self.below:
            raise Damaged("a mark is missing")
        values, self.stack = self.stack, self.below.pop()
        return values

    def _other(self, info: OpcodeInfo) -> None:
        """An operation of which only the number of values matters."""
        wanted = len(info.stack_before)
        if stackslice in info.stack_before:
            self.pop_mark()
            wanted -= 2
        kept = info.name in KEEPING
        for _ in range(wanted - kept):
            self.pop()
        if kept:
            self.stack.append(self.pop())
        else:
            self.stack.extend(UNKNOWN for _ in info.stack_after)

    # --- values ---

    def proto(self, version: int) -> None:
        if version > 5:
            raise Damaged(f"protocol {version} is unknown")

    def frame(self, length: int) -> None:
        self.frame_end = self.stream.tell() + length

    def mark(self, _: object) -> None:
        self.below.append(self.stack)
        self.stack = []

    def drop(self, _: object) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def drop_mark(self, _: object) -> None:
        self.pop_mark()

    def repeat(self, _: object) -> None:
        self.stack.append(self.pop())
        self.stack.append(self.stack[-1])

    def none(self, _: object) -> None:
        self.stack.append(None)

    def yes(self, _: object) -> None:
        self.stack.append(True)

    def no(self, _: object) -> None:
        self.stack.append(False)

    def some_bytes(self, value: bytes | bytearray) -> None:
        self._look_inside(bytes(value[:8]), lambda: bytes(value))
        self.stack.append(UNKNOWN)

    def empty_tuple(self, _: object) -> None:
        self.stack.append(())

    def tuple_of_mark(self, _: object) -> None:
        values = tuple(self.pop_mark())
        self.stack.append(values)

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def empty_dict(self, _: object) -> None:
        self.stack.append({})

    def set_item(self, _: object) -> None:
        value, key = self.pop(), self.pop()
        self._store([key, value])

    def set_items(self, _: object) -> None:
        self._store(self.pop_mark())

    def _store(self, values: list[Any]) -> None:
        target = self.pop()
        self.stack.append(target)
        if isinstance(target, dict):
            for key, value in zip(values[::2], values[1::2], strict=False):
                if isinstance(key, str) and len(target) < MOST_KEYS:
                    target[key] = value

    def put(self, index: int) -> None:
        self.memo[index] = self.pop()
        self.stack.append(self.memo[index])

    def memoize(self, _: object) -> None:
        self.put(len(self.memo))

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise Damaged(f"value {index} is missing")
        self.stack.append(self.memo[index])

    # --- names and calls ---

    def name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_name(Name(module, name))

    def name_from_stack(self, _: object) -> None:
        name, module = self.pop(), self.pop()
        known = isinstance(name, str) and isinstance(module, str)
        self._push_name(Name(module, name) if known else COMPUTED)

    def extension(self, code: int) -> None:
        self._push_name(Name("copyreg", f"(extension {code})"))

    def _push_name(self, name: Name) -> None:
        self.budget.names -= name not in self.found.uses
        if self.budget.names < 0:
            raise Damaged("the limit on names is reached", limit=True)
        self.found.uses[name] += 1
        self.stack.append(name)

    def instance(self, argument: str) -> None:
        self.name(argument)  # imported before the mark is looked for
        kind = self.pop()
        self.pop_mark()
        self._call(kind)

    def object_of_mark(self, _: object) -> None:
        values = self.pop_mark()
        if not values:
            raise Damaged("a class is missing")
        self._call(values[0])

    def reduce(self, _: object) -> None:
        arguments, function = self.pop(), self.pop()
        self._call(function, arguments)

    def new_object(self, _: object) -> None:
        arguments, kind = self.pop(), self.pop()
        self._call(kind, arguments)

    def new_object_ex(self, _: object) -> None:
        self.pop()
        self.new_object(None)

    def _call(self, function: object, arguments: object = None) -> None:
        self.found.calls[function if isinstance(function, Name) else COMPUTED] += 1
        if not isinstance(function, Name):
            self.found.uses[COMPUTED] += 1
        if function == ("_codecs", "encode") and isinstance(arguments, tuple):
            self._look_inside_text(arguments)
        self.stack.append(Made(function, arguments if function == ("numpy", "dtype") else None))

    def build(self, _: object) -> None:
        state, target = self.pop(), self.pop()
        self.stack.append(target)
        if isinstance(target, Name):  # changes the class or module itself
            self.found.calls[target] += 1
        if not isinstance(target, Made):
            return
        target.state = state
        made_by = target.by
        if self.joblib and isinstance(made_by, Name) and made_by.module.startswith("joblib.numpy_pickle"):
            self._skip_array(made_by, state)

    def _skip_array(self, wrapper: Name, state: object) -> None:
        """Skip what joblib stores after a wrapped array's state: its bytes, or a pickle of its objects."""
        if wrapper.name != "NumpyArrayWrapper":
            return  # an old wrapper's array is in another file
        position = self.stream.tell()
        if position < self.frame_end or not isinstance(state, Mapping):
            raise Damaged("the size or position of an array is not clear", certain=False)
        try:
            end = self._objects(position) if holds_objects(state) else position + gap(state, self.stream)
        except Unclear as error:
            raise Damaged(str(error), certain=False) from error
        self.stream.seek(0, io.SEEK_END)
        if end > self.stream.tell():
            raise Damaged("the file ends inside an array", ended=True)
        self.stream.seek(end)
        self.found.gaps.append((position, end))

    def _objects(self, position: int) -> int:
        """The end of the pickle of an array's objects, whose names are added to those of this pickle."""
        inner = walk(self.stream, position, self.budget, joblib=False)
        self.found.uses.update(inner.uses)
        self.found.calls.update(inner.calls)
        self.found.embedded += inner.embedded
        if inner.error is not None:
            raise inner.error
        return inner.end

    def _look_inside(self, head: bytes, whole: Callable[[], bytes]) -> None:
        if head.startswith(EMBEDDED):
            self.found.embedded.append((self.found.end, whole()))

    def _look_inside_text(self, arguments: tuple[Any, ...]) -> None:
        """As `_look_inside`, for text that is encoded while loading."""
        if arguments and isinstance(arguments[0], str):
            try:
                value = arguments[0].encode("latin-1")
            except UnicodeEncodeError:
                return
            self._look_inside(value[:8], lambda: value)


def _too_long(value: object) -> bool:
    return isinstance(value, str) and len(value) > LONGEST and not value.startswith(EMBEDDED_TEXT)


CONSTANTS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    }
)
KEEPING = frozenset({"APPEND", "APPENDS", "ADDITEMS"})  # change the value below their arguments, which stays there
OPERATIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.proto,
    "FRAME": _Machine.frame,
    "MARK": _Machine.mark,
    "POP": _Machine.drop,
    "POP_MARK": _Machine.drop_mark,
    "DUP": _Machine.repeat,
    "NONE": _Machine.none,
    "NEWTRUE": _Machine.yes,
    "NEWFALSE": _Machine.no,
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _Machine.some_bytes),
    "EMPTY_TUPLE": _Machine.empty_tuple,
    "TUPLE": _Machine.tuple_of_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "EMPTY_DICT": _Machine.empty_dict,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": _Machine.memoize,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_from_stack,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _Machine.extension),
    "INST": _Machine.instance,
    "OBJ": _Machine.object_of_mark,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new_object,
    "NEWOBJ_EX": _Machine.new_object_ex,
    "BUILD": _Machine.build,
}
