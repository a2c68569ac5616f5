"""A process that carries out plans in child processes, each of which is killed at a given point.

Children are forked where everything is imported already, so that each starts within milliseconds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Self

from likewise import deployments
from likewise.receipts import Receipts
from likewise.targets.apply import apply
from likewise.targets.base import PlanStep, Verb
from likewise.targets.registry import open_target

RECEIPT = "the receipt"


class Deployer:
    """The process, until the end of `with`; it has the environment of the moment in which it starts.

    uri, options: of the target.
    """

    def __init__(self, uri: str, options: Mapping[str, str]) -> None:
        self._uri, self._options = uri, dict(options)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._errors: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            command, pipe = [sys.executable, "-m", __name__, self._uri], subprocess.PIPE
            self._process = stack.enter_context(
                subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()  # it ends with its stdin

    def killed(self, verb: Verb, name: str, model: Path | None, *, before: str) -> None:
        """Carry out a plan in a process that is killed before its step `before`, or before RECEIPT is written."""
        self._start(verb, name, model, before)
        self._await_kill()

    def killed_everywhere(self, verb: Verb, name: str, model: Path | None) -> None:
        """Begin a plan again and again, killed before each of its steps in turn, and before its receipt is written."""
        wanted = None if model is None else deployments.model_of(model, trust=True)
        plan = deployments.plan(verb, name, to=self._uri, model=wanted, options=self._options).plan
        for before in [*(step.id for step in plan.steps), RECEIPT]:
            self.killed(verb, name, model, before=before)

    def killed_when(self, begun: Callable[[], None], verb: Verb, name: str, model: Path | None) -> None:
        """Carry out a plan in a process that is killed as soon as `begun()` returns."""
        pid = self._start(verb, name, model, None)
        begun()
        os.kill(pid, signal.SIGKILL)
        self._await_kill()

    def _start(self, verb: Verb, name: str, model: Path | None, before: str | None) -> int:
        task = {"verb": verb, "name": name, "model": str(model) if model else None, "before": before}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**task, "to": self._uri, "options": self._options}) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def _await_kill(self) -> None:
        code = int(self._line())
        if code != -signal.SIGKILL:
            self._errors.seek(0)
            raise AssertionError(f"it ended with {code} before it was killed: {self._errors.read().decode()[-3000:]}")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


# --- in the process --------------------------------------------------------------------------------------------------


def main(uri: str) -> None:
    """For each task, a line of JSON, a child process: its id and, when it has ended, its exit code."""
    open_target(uri)  # imports it, and reaches nothing: children would share its connections
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            return _carry_out(json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return None


def _carry_out(task: Mapping[str, Any]) -> None:
    """In the child, which ends with it."""

    def before_step(step: PlanStep) -> None:
        if step.id == task["before"]:
            _die()

    model = deployments.model_of(task["model"], trust=True) if task["model"] else None
    wanted = {"to": task["to"], "model": model, "options": task["options"]}
    planned = deployments.plan(task["verb"], task["name"], **wanted, settle=True)
    receipts = Receipts()
    if task["before"] == RECEIPT:
        receipts.end = _die  # type: ignore[method-assign]
    apply(planned.plan, planned.target, receipts, before_step)


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
