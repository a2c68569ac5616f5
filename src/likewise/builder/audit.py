"""An audit hook that sees what a model touches beside the doors that are vendored.

Files, databases, the network; and other programs, of which only the command line can be seen: one that names a file
outside is a touch, any other is told apart.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/lib64", "/bin", "/sbin", "/var/lib", "/System", "/Library")
# In the home folder, dotted folders are configuration; these hold models and data, which a bundle has to carry.
CACHES = (".cache", ".keras", ".mlflow", ".ollama")
HARMLESS_CACHES = ("matplotlib", "fontconfig", "numba", "pip", "mesa_shader_cache", "torch_extensions")

PROGRAM = 200  # characters of a command line that are told

Seen = Callable[[str], None]


class AuditWatch:
    """Tells `seen` of every touch outside: `opens the file /path`, `connects to host:port`, `opens the database /path`,
    `starts a program on /path: command line`.

    own: folders whose files may be read wherever they lie.  hidden: what may not, unless it is `own`.
    everywhere: whether files that are none of these, nor Python's, nor the system's, are told too.
    started: is told the command line of every other program that is started.
    An audit hook cannot be taken out again: for child processes only.
    """

    def __init__(
        self,
        seen: Seen,
        *,
        own: Iterable[Path],
        hidden: Iterable[Path] = (),
        everywhere: bool,
        started: Seen = lambda _: None,
    ) -> None:
        self._seen = seen
        self._started = started
        self._own = tuple(_spellings(own))
        self._hidden = tuple(_spellings(hidden))
        self._system = _interpreter()
        self._everywhere = everywhere
        self._paused = 0

    def start(self) -> None:
        """From here on every touch is told."""
        sys.addaudithook(self._hook)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is touched meanwhile is on our behalf."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self._paused or event not in _HANDLERS:
            return
        touch = _HANDLERS[event](self, args)
        if touch is not None:
            with self.paused():
                self._seen(touch)

    def _open(self, args: tuple[Any, ...]) -> str | None:
        path, mode, flags = args
        if isinstance(path, int) or _writes(mode, flags):
            return None
        return f"opens the file {os.fsdecode(path)}" if self._outside(os.fsdecode(path)) else None

    def _connect(self, args: tuple[Any, ...]) -> str | None:
        address = args[1]
        if not isinstance(address, tuple) or str(address[0]) in ("127.0.0.1", "::1", "localhost"):
            return None  # loopback: a service that the model has started itself
        return f"connects to {address[0]}:{address[1]}"

    def _database(self, args: tuple[Any, ...]) -> str | None:
        name = os.fsdecode(args[0]).removeprefix("file:").partition("?")[0]
        return f"opens the database {name}" if name and name != ":memory:" and self._outside(name) else None

    def _program(self, executable: object, arguments: object, folder: object = None) -> str | None:
        command = _strings(arguments)
        line = " ".join(" ".join(command).split())[:PROGRAM]
        base = "".join(_strings(folder)) or os.curdir
        for word in _words([*_strings(executable), *command]):
            path = os.path.abspath(os.path.join(base, word))
            if self._outside(path, os.path.exists if "/" in word else os.path.isfile):
                return f"starts a program on {path}: {line}"
        with self.paused():
            self._started(line)
        return None

    def _outside(self, name: str, there: Callable[[str], bool] = os.path.isfile) -> bool:
        path = os.path.abspath(name)
        if _within(path, self._own):
            return False
        if _within(path, self._hidden):
            return True
        if not self._everywhere or _within(path, self._system) or _configuration(path):
            return False
        with self.paused():
            return there(path) and not _within(os.path.realpath(path), (*self._own, *self._system))


_HANDLERS: dict[str, Callable[[AuditWatch, tuple[Any, ...]], str | None]] = {
    "open": AuditWatch._open,
    "socket.connect": AuditWatch._connect,
    "sqlite3.connect": AuditWatch._database,
    "subprocess.Popen": lambda watch, args: watch._program(*args[:3]),
    "os.exec": lambda watch, args: watch._program(*args[:2]),
    "os.posix_spawn": lambda watch, args: watch._program(*args[:2]),
    "os.system": lambda watch, args: watch._program(None, args[0]),
}


def _strings(value: object) -> list[str]:
    """An argument, or a list of them, as an audit event has them."""
    if isinstance(value, (str, bytes, os.PathLike)):
        return [os.fsdecode(value)]
    listed = value if isinstance(value, (list, tuple)) else ()
    return [os.fsdecode(v) for v in listed if isinstance(v, (str, bytes, os.PathLike))]


def _words(command: Iterable[str]) -> Iterator[str]:
    """Each argument, the words in it where it is a shell's own line, and what follows a `=`."""
    for argument in command:
        for word in (argument, *_shell_words(argument)):
            yield word
            yield word.partition("=")[2]


def _shell_words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return list(lexer)
    except ValueError:  # a quote that nothing closes
        return line.split()


def _writes(mode: object, flags: object) -> bool:
    if isinstance(mode, str):
        return not mode.startswith("r")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


def _within(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _configuration(path: str) -> bool:
    """A settings file in the home folder; not one of its caches."""
    home = os.path.expanduser("~").rstrip("/") + "/"
    first, _, rest = path.removeprefix(home).partition("/")
    if not path.startswith(home) or not first.startswith("."):
        return False
    return first not in CACHES or rest.partition("/")[0] in HARMLESS_CACHES


def _interpreter() -> tuple[str, ...]:
    prefixes = [sys.prefix, sys.base_prefix, sys.exec_prefix, *(p for p in sys.path if p)]
    return (*_spellings(Path(p) for p in prefixes), *SYSTEM, *_spellings([Path(tempfile.gettempdir())]))


def _spellings(folders: Iterable[Path]) -> Iterator[str]:
    for folder in folders:
        yield from {os.path.abspath(folder), os.path.realpath(folder)}
