"""Executes plans in child processes, each of which is killed at a given point.

The children are forked from a process that has already imported everything, so that each starts within milliseconds.
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
from likewise.targets import planning
from likewise.targets.apply import apply
from likewise.targets.base import PlanStep, Verb
from likewise.targets.registry import open_target

RECEIPT = "the receipt"


class Deployer:
    """The process that forks the children; runs until the end of `with`, in the environment at its start.

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
        self._stack.close()  # closes its stdin, on which it exits

    def kill_before(self, before: str, verb: Verb, name: str, model: Path | None) -> None:
        """Execute a plan in a process that is killed before its step `before`, or before RECEIPT is written."""
        self._start(verb, name, model, before)
        self._await_kill()

    def kill_before_each_step(self, verb: Verb, name: str, model: Path | None) -> None:
        """Execute a plan several times, killed before each of its steps in turn and before its receipt is written."""
        spec = None if model is None else deployments.model_of(model, trust=True)
        plan = planning.plan(verb, name, to=self._uri, model=spec, options=self._options).plan
        for before in [*(step.id for step in plan.steps), RECEIPT]:
            self.kill_before(before, verb, name, model)

    def kill_after(self, wait: Callable[[], None], verb: Verb, name: str, model: Path | None) -> None:
        """Execute a plan in a process that is killed as soon as `wait()` returns."""
        pid = self._start(verb, name, model, None)
        wait()
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
            stderr = self._errors.read().decode()[-3000:]
            raise AssertionError(f"the process exited with {code} before it was killed: {stderr}")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


# --- in the forking process and its children -------------------------------------------------------------------------


def main(uri: str) -> None:
    """For each line of JSON on stdin, fork a child to execute it; print its pid and, after its exit, its exit code."""
    open_target(uri)  # imports the target; it opens no connections, which the children would share
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            return _execute(json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return None


def _execute(task: Mapping[str, Any]) -> None:
    """Execute the task's plan, in the child process."""

    def before_step(step: PlanStep) -> None:
        if step.id == task["before"]:
            _die()

    model = deployments.model_of(task["model"], trust=True) if task["model"] else None
    params = {"to": task["to"], "model": model, "options": task["options"]}
    planned = planning.plan(task["verb"], task["name"], **params, roll_back_interrupted=True)
    receipts = Receipts()
    if task["before"] == RECEIPT:
        receipts.finish = _die  # type: ignore[method-assign]
    apply(planned.plan, planned.target, receipts, before_step)


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
