"""A step of the build in a process of its own: the model's code runs there, and a file brings back what came of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from likewise.core import errors
from likewise.core.errors import LikewiseError, ModelInvalid

TAIL = 2000  # characters of a failed child's last output
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
    that it started are ended.  Raises what the child named, or ModelInvalid with the end of what it printed.
    """
    temporary = work / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    asked, answered, printed = work / "task.json", work / "result.json", work / "output.txt"
    asked.write_text(json.dumps(task))
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


def answer(path: Path, result: Mapping[str, object]) -> None:
    """In the child: leave the result, whole or not at all."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(result))
    beside.replace(path)


def failure(error: LikewiseError) -> dict[str, object]:
    """In the child: a result that `run_child` raises again as the same error."""
    return {"error": {"kind": type(error).__name__, "cause": error.cause, "remedy": error.remedy}}


def _wait(process: subprocess.Popen[bytes], timeout: float) -> bool:
    try:
        process.wait(timeout)
        return False
    except subprocess.TimeoutExpired:
        return True
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # the session's other processes too
    process.wait()


def _result(answered: Path, printed: Path, timed_out: bool, code: int, timeout: float) -> dict[str, Any]:
    if answered.is_file():
        result: dict[str, Any] = json.loads(answered.read_text())
        if (error := result.get("error")) is not None:
            raise getattr(errors, error["kind"])(error["cause"], remedy=error["remedy"])
        return result
    said = printed.read_text(errors="replace")[-TAIL:].strip() or "nothing"
    how = f"took more than {timeout:.0f} s" if timed_out else f"ended with code {code}"
    raise ModelInvalid(
        f"loading the model in a process of its own {how}; it said: {said}",
        remedy="load it with mlflow.pyfunc.load_model here first, and mend what that reports",
    )
