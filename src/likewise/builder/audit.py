"""An audit hook that reports the resources that a model accesses outside the vendored MLflow APIs.

It covers files, databases, the network, and other programs. Of a program only the command line is visible: if it names
a file outside the model, that is an access; otherwise the program is reported separately.
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
# Hidden folders in the home folder are configuration, except these: they hold models and data that a bundle needs.
CACHES = (".cache", ".keras", ".mlflow", ".ollama")
HARMLESS_CACHES = ("matplotlib", "fontconfig", "numba", "pip", "mesa_shader_cache", "torch_extensions")

MAX_COMMAND = 200  # reported characters of a command line

AccessCallback = Callable[[str], None]


class AuditWatch:
    """Calls `on_access` with a description of each access to an outside resource: `opens the file /path`,
    `connects to host:port`, `opens the database /path`, `starts a program on /path: command line`.

    own: folders whose files may be read.  hidden: folders whose files may not, unless they are in `own`.
    everywhere: whether to report files outside all of these that do not belong to Python or the system either.
    on_program: called with the command line of each other program that is started.
    An audit hook cannot be removed, so use it only in child processes.
    """

    def __init__(
        self,
        on_access: AccessCallback,
        *,
        own: Iterable[Path],
        hidden: Iterable[Path] = (),
        everywhere: bool,
        on_program: AccessCallback = lambda _: None,
    ) -> None:
        self._on_access = on_access
        self._on_program = on_program
        self._own = tuple(_spellings(own))
        self._hidden = tuple(_spellings(hidden))
        self._system = _interpreter()
        self._everywhere = everywhere
        self._paused = 0

    def start(self) -> None:
        """Install the hook; all later accesses are reported."""
        sys.addaudithook(self._hook)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not report accesses in this context, which are Likewise's own."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self._paused or event not in _HANDLERS:
            return
        access = _HANDLERS[event](self, args)
        if access is not None:
            with self.paused():
                self._on_access(access)

    def _open(self, args: tuple[Any, ...]) -> str | None:
        path, mode, flags = args
        if isinstance(path, int) or _writes(mode, flags):
            return None
        return f"opens the file {os.fsdecode(path)}" if self._outside(os.fsdecode(path)) else None

    def _connect(self, args: tuple[Any, ...]) -> str | None:
        address = args[1]
        if not isinstance(address, tuple) or str(address[0]) in ("127.0.0.1", "::1", "localhost"):
            return None  # loopback: a service that the model itself has started
        return f"connects to {address[0]}:{address[1]}"

    def _database(self, args: tuple[Any, ...]) -> str | None:
        name = os.fsdecode(args[0]).removeprefix("file:").partition("?")[0]
        return f"opens the database {name}" if name and name != ":memory:" and self._outside(name) else None

    def _program(self, executable: object, arguments: object, folder: object = None) -> str | None:
        command = _strings(arguments)
        line = " ".join(" ".join(command).split())[:MAX_COMMAND]
        base = "".join(_strings(folder)) or os.curdir
        for word in _words([*_strings(executable), *command]):
            path = os.path.abspath(os.path.join(base, word))
            if self._outside(path, os.path.exists if "/" in word else os.path.isfile):
                return f"starts a program on {path}: {line}"
        with self.paused():
            self._on_program(line)
        return None

    def _outside(self, name: str, exists: Callable[[str], bool] = os.path.isfile) -> bool:
        path = os.path.abspath(name)
        if _within(path, self._own):
            return False
        if _within(path, self._hidden):
            return True
        if not self._everywhere or _within(path, self._system) or _configuration(path):
            return False
        with self.paused():
            return exists(path) and not _within(os.path.realpath(path), (*self._own, *self._system))


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
    """The strings in an audit event's argument, which is a path or a list of paths."""
    if isinstance(value, (str, bytes, os.PathLike)):
        return [os.fsdecode(value)]
    listed = value if isinstance(value, (list, tuple)) else ()
    return [os.fsdecode(v) for v in listed if isinstance(v, (str, bytes, os.PathLike))]


def _words(command: Iterable[str]) -> Iterator[str]:
    """Each argument, the words in it in case it is a shell command, and the part of each after a `=`."""
    for argument in command:
        for word in (argument, *_shell_words(argument)):
            yield word
            yield word.partition("=")[2]


def _shell_words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return list(lexer)
    except ValueError:  # an unclosed quote
        return line.split()


def _writes(mode: object, flags: object) -> bool:
    if isinstance(mode, str):
        return not mode.startswith("r")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


def _within(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _configuration(path: str) -> bool:
    """Whether `path` is a settings file in the home folder, rather than in one of its caches."""
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
