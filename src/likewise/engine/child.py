"""A step of the build in a process of its own: the model's code runs there, and a file brings back what came of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from likewise.core import errors
from likewise.core.errors import LikewiseError, ModelInvalid
from likewise.core.processes import die_with_parent
from likewise.engine.vendored import named_cause

TAIL = 300  # characters of a dead child's last line, or of an exception that nobody foresaw
DEBUG = "LIKEWISE_DEBUG"  # set: the child's whole traceback or output comes along, as a note of the exception
Task = Mapping[str, Any]
_TRY = "load it with mlflow.pyfunc.load_model here first, and mend what that reports"
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "PYTHONDONTWRITEBYTECODE": "1",
    "TQDM_DISABLE": "1",
}


def run_child(
    module: str, task: Mapping[str, object], work: Path, *, environment: Mapping[str, str], timeout: float
) -> dict[str, Any]:
    """Run `python -m module TASK RESULT` in a session of its own and return its result.

    work: a folder of the child's own; its temporary files go there.  timeout: seconds, after which the child and all
    that it started are ended.  Raises what the child named, or ModelInvalid with the last line that it printed.
    """
    temporary = work / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    asked, answered, printed = work / "task.json", work / "result.json", work / "output.txt"
    asked.write_text(json.dumps({**task, "parent": os.getpid()}))
    answered.unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", module, str(asked), str(answered)]
    with printed.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, **_QUIET, "TMPDIR": str(temporary)},
            start_new_session=True,
        )
        timed_out = _wait(process, timeout)
    return _result(answered, printed, timed_out, process.returncode, timeout)


def carry_out(work: Callable[[Task, Path], Mapping[str, object]], asked: str, answered: str) -> None:
    """In the child: leave what `work(task, folder)` returns or raises, whole or not at all; ends with its parent."""
    task = json.loads(Path(asked).read_text())
    die_with_parent(task["parent"])
    path = Path(answered)
    try:
        result = work(task, path.parent)
    except Exception as error:  # noqa: BLE001  whatever the model raises is its to mend
        result = _failure(error)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(result))
    beside.replace(path)


def _failure(error: Exception) -> dict[str, object]:
    """A result that `run_child` raises again: as the same error where it is one of ours."""
    unforeseen = f"loading the model in a process of its own failed: {type(error).__name__}: {str(error)[:TAIL]}"
    known = named_cause(error) or ModelInvalid(unforeseen, remedy=_TRY)
    raised = {"kind": type(known).__name__, "cause": known.cause, "remedy": known.remedy}
    return {"error": raised, "log": "".join(traceback.format_exception(error))}


def _wait(process: subprocess.Popen[bytes], timeout: float) -> bool:
    try:
        process.wait(timeout)
        return False
    except subprocess.TimeoutExpired:
        return True
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # the session's other processes too
        process.wait()


def _result(answered: Path, printed: Path, timed_out: bool, code: int, timeout: float) -> dict[str, Any]:
    if answered.is_file():
        result: dict[str, Any] = json.loads(answered.read_text())
        if (error := result.get("error")) is not None:
            named = getattr(errors, error["kind"])(error["cause"], remedy=error["remedy"])
            raise _with_log(named, result.get("log", ""))
        return result
    log = printed.read_text(errors="replace").strip()
    said = log.rpartition("\n")[2][-TAIL:] or "nothing"
    how = f"took more than {timeout:.0f} s" if timed_out else f"ended with code {code}"
    died = ModelInvalid(f"loading the model in a process of its own {how}; it said: {said}", remedy=_TRY)
    raise _with_log(died, log)


def _with_log(error: LikewiseError, log: str) -> LikewiseError:
    if os.environ.get(DEBUG):
        error.add_note(log)
    return error
