"""An audit hook that reports the resources that a model accesses outside the vendored MLflow APIs.

It covers files, databases, the network, and other programs. Of a program only the command line is visible: if it names
a file outside the model, that is an access; otherwise the program is reported separately.
"""

from __future__ import annotations

import linecache
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from likewise.builder.machine_files import holds_data, is_incidental, is_setting, machine_folders, spellings

MAX_COMMAND = 200  # reported characters of a command line

AccessCallback = Callable[[str], None]


class AuditWatch:
    """Calls `on_access` with a description of each access to an outside resource: `opens the file /path`,
    `connects to host:port`, `opens the database /path`, `starts a program on /path: command line`.

    own: folders whose files may be read.  hidden: folders whose files may not, unless they are in `own`.
    everywhere: whether to report files outside all of these that do not belong to Python or the system either, and that
    the process has not written itself.
    on_program: called with the command line of each other program that is started.
    on_setting: called with the path of each file of settings in the home folder that is read.
    on_source: called with the path of each outside source file of which Python wants to show a line in a warning or
    traceback; an OSError that it raises is shown as a missing line.
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
        on_setting: AccessCallback = lambda _: None,
        on_source: AccessCallback = lambda _: None,
    ) -> None:
        self._on_access = on_access
        self._on_program = on_program
        self._on_setting = on_setting
        self._on_source = on_source
        self._own = tuple(spellings(own))
        self._hidden = tuple(spellings(hidden))
        self._system = machine_folders()
        self._everywhere = everywhere
        self._written: set[str] = set()
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
        if isinstance(path, int):
            return None
        name = os.fsdecode(path)
        if _writes(mode, flags):
            if _emptied(mode, flags) or not self._is_file(name):
                self._written.add(os.path.abspath(name))
            return None
        if name.endswith((".py", ".pyw")) and self._shows_source():
            if not _within(os.path.abspath(name), (*self._own, *self._system)):
                self._on_source(name)
            return None
        return f"opens the file {name}" if self._outside(name) else None

    def _renamed(self, args: tuple[Any, ...]) -> None:
        source, target = (os.path.abspath(os.fsdecode(each)) for each in args[:2])
        if source in self._written:
            self._written.add(target)

    def _shows_source(self) -> bool:
        """Whether `linecache` opens the file for a library, such as `warnings`, and not for the model's own code."""
        frame: FrameType | None = sys._getframe()
        inside = {__name__: False, "tokenize": False, "linecache": False}
        while frame is not None and (name := frame.f_globals.get("__name__")) in inside:
            inside[name] = inside[name] or frame.f_globals is vars(linecache)
            frame = frame.f_back
        if frame is None:
            return False
        if frame.f_globals is vars(threading):  # where the interpreter itself shows the traceback of a thread
            return True
        return inside["linecache"] and _within(frame.f_code.co_filename, self._system)

    def _connect(self, args: tuple[Any, ...]) -> str | None:
        address = args[1]
        if not isinstance(address, tuple) or str(address[0]) in ("127.0.0.1", "::1", "localhost"):
            return None  # loopback: a service that the model itself has started
        return f"connects to {address[0]}:{address[1]}"

    def _database(self, args: tuple[Any, ...]) -> str | None:
        name = os.fsdecode(args[0]).removeprefix("file:").partition("?")[0]
        if not name or name == ":memory:":
            return None
        if self._outside(name):
            return f"opens the database {name}"
        if not self._is_file(name):
            self._written.add(os.path.abspath(name))
        return None

    def _program(self, executable: object, arguments: object, folder: object = None) -> str | None:
        command = _strings(arguments)
        line = " ".join(" ".join(command).split())[:MAX_COMMAND]
        base = "".join(_strings(folder)) or os.curdir
        for word in () if _is_git(command) else _words([*_strings(executable), *command]):
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
        if not self._everywhere or path in self._written or is_incidental(path):
            return False
        with self.paused():
            real = os.path.realpath(path)
            machines = _within(path, self._system) or _within(real, (*self._own, *self._system))
            if (machines and not holds_data(path)) or not exists(path):
                return False
        if is_setting(path):
            self._on_setting(path)
            return False
        return True

    def _is_file(self, name: str) -> bool:
        with self.paused():
            return os.path.isfile(name)


_HANDLERS: dict[str, Callable[[AuditWatch, tuple[Any, ...]], str | None]] = {
    "open": AuditWatch._open,
    "os.rename": AuditWatch._renamed,
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


def _is_git(command: Sequence[str]) -> bool:
    """Whether git is started, with which MLflow tags the traces of agents; it is reported as a program."""
    return bool(command) and os.path.basename(command[0]) == "git"


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
    """Whether a file is opened for writing only, or emptied; a file that is also read is a file that is opened."""
    if isinstance(mode, str):
        return not mode.startswith("r")
    return isinstance(flags, int) and (bool(flags & os.O_WRONLY) or _emptied(None, flags))


def _emptied(mode: object, flags: object) -> bool:
    """Whether the file's earlier content is removed, so that all that is read from it later is the process's own."""
    if isinstance(mode, str):
        return mode.startswith(("w", "x"))
    return isinstance(flags, int) and bool(flags & (os.O_TRUNC | os.O_EXCL))


def _within(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
