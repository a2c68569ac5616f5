"""Runs commands step by step: prints each as a user would type it, and records what the steps created."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rich.markup import escape

from likewise.cli.screen import err, visible
from likewise.core.errors import LikewiseError, OutputRefused

LIKEWISE = (sys.executable, "-m", "likewise.cli")
READY_TIMEOUT_S = 120.0  # for a background process to print its document
STOP_TIMEOUT_S = 30.0  # for a child process to clean up; a server takes up to 23 s
MARKER = ".likewise-demo"  # marks a folder that the demo created and may overwrite
HIDDEN = ("--json",)  # flags that only the demo needs


@dataclass(frozen=True, slots=True)
class Created:
    """What one step created, and what is known about it. where: its place; then: the command to try next."""

    what: str
    about: str
    where: str
    then: str
    seconds: float


@dataclass
class Walk:
    """Runs commands in `folder`, with the variables `env`; no process outlives its `with` block or call.

    env: added to this process's environment.  without: prefixes of the variables that are removed from it.
    """

    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    created: list[Created] = field(default_factory=list)
    _number: int = 0  # of the current step

    def prepare_folder(self) -> None:
        """Create the folder; raises OutputRefused if it exists and holds files of others."""
        self.folder = self.folder.resolve()
        marker = self.folder / MARKER
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not marker.exists() and any(self.folder.iterdir()):
                raise OutputRefused(
                    f"{self.folder} is not empty, and was not created by the demo",
                    remedy="choose a new folder with -o",
                )
            marker.touch()
        except OSError as error:
            raise OutputRefused(f"cannot create {self.folder}: {error}", remedy="use another folder: -o DIR") from error

    @contextmanager
    def step(self, title: str, what: str) -> Iterator[Callable[[str, str, str], None]]:
        """Print the step's title; the caller ends the step by calling the result with (about, where, then)."""
        self._number += 1
        err.print(f"\n[bold cyan]{self._number}[/bold cyan] [bold]{escape(title)}[/bold]")
        start = time.perf_counter()

        def done(about: str, where: str, then: str) -> None:
            seconds = time.perf_counter() - start
            self.created.append(Created(what, about, where, then, seconds))
            self.note(where)
            err.print(f"  [green]✓[/green] {escape(visible(about))} [dim]{seconds:.1f} s[/dim]", soft_wrap=True)

        yield done

    def note(self, text: str) -> None:
        """Print a line below the step's title."""
        err.print(f"  [dim]{escape(visible(text))}[/dim]", soft_wrap=True)

    def json(self, *argv: str, log: str = "") -> Mapping[str, object]:
        """The JSON object that a command prints; see `run`."""
        document = json.loads(self.run(*argv, log=log))
        assert isinstance(document, dict)  # noqa: S101  every command prints one object
        return document

    def run(self, *argv: str, log: str = "") -> str:
        """Run a command to its end and return its stdout; its stderr goes to the file `log`, by default to ours.

        Raises LikewiseError with the command's own cause if its exit code is not 0.
        """
        self.type(argv)
        waiting: AbstractContextManager[object] = err.status(f"its messages go to {log}") if log else nullcontext()
        with self.log(log) as stderr, waiting, self.child(argv, stderr) as child:
            stdout, _ = child.communicate()
        if child.returncode:
            cause = _cause(stdout)
            raise LikewiseError(
                f"{typed(argv)} exited with code {child.returncode}{': ' + cause if cause else ''}",
                remedy=f"read {self.folder / log}" if log else "see the output above, or run this command by hand",
            )
        return stdout

    @contextmanager
    def background(self, *argv: str, log: str) -> Iterator[Mapping[str, object]]:
        """Run a command until the end of `with`; yields the JSON object that it prints when it is ready.

        It is not interrupted by Ctrl-C in the terminal, so that what depends on it can be cleaned up first.
        """
        with self.log(log) as stderr, self.child(argv, stderr, start_new_session=True) as process:
            yield self._await_document(process, log)

    def type(self, argv: Sequence[str]) -> None:
        """Print a command as a user would type it."""
        err.print(f"  [cyan]$[/cyan] {escape(visible(typed(argv)))}", soft_wrap=True)

    def log(self, name: str) -> AbstractContextManager[IO[str] | None]:
        """The file `name` of the folder, opened for writing; None for an empty name."""
        return (self.folder / name).open("w") if name else nullcontext()

    @contextmanager
    def child(
        self, argv: Sequence[str], stderr: IO[str] | None, *, start_new_session: bool = False
    ) -> Iterator[subprocess.Popen[str]]:
        """A child process that does not outlive the block: SIGTERM, time to clean up, then SIGKILL."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(self.without)}
        with subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,  # closed when this process ends
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**kept, **self.env},
            cwd=self.folder,
            start_new_session=start_new_session,
        ) as child:
            try:
                yield child
            finally:
                child.terminate()
                try:
                    with suppress(subprocess.TimeoutExpired):
                        child.wait(STOP_TIMEOUT_S)
                finally:
                    child.kill()
                    child.wait()  # `with` does not wait for it after Ctrl-C

    def _await_document(self, process: subprocess.Popen[str], log: str) -> Mapping[str, object]:
        assert process.stdout is not None  # noqa: S101  it was opened as a pipe
        timer = threading.Timer(READY_TIMEOUT_S, process.kill)
        timer.start()
        try:
            text = ""
            while not text.endswith("}\n") and (line := process.stdout.readline()):
                text += line
        finally:
            timer.cancel()
        document = json.loads(text or "{}")
        if not document or "error" in document:
            raise LikewiseError(
                f"{typed(process.args)} did not become ready: {_cause(text)}",  # type: ignore[arg-type]
                remedy=f"read {self.folder / log}, and report it",
            )
        return dict(document)


def typed(argv: Sequence[str]) -> str:
    """The command that a user would type in the folder, in an activated environment."""
    words = [word for word in argv if word not in HIDDEN]
    if tuple(words[:3]) == LIKEWISE:
        words[:3] = ["likewise"]
    elif words[0] == sys.executable:
        words[0] = "python"
    return shlex.join(words)


def _cause(stdout: str) -> str:
    """The cause in a command's JSON error document; empty if stdout does not contain one."""
    try:
        return str(json.loads(stdout)["error"]["cause"])
    except (ValueError, KeyError, TypeError):
        return ""
