"""Runs a build step in a child process, which executes the model's code and returns its result in a file.

The child writes its progress, fractions of 1, to a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import site
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from likewise.core import errors
from likewise.core.cores import thread_environment, usable_cores
from likewise.core.errors import LikewiseError, ModelInvalid
from likewise.core.processes import die_with_parent
from likewise.core.uris import redacted
from likewise.engine.vendored import likewise_cause

TAIL = 300  # reported characters of a failed child's last output line, or of an unexpected exception
DEBUG = "LIKEWISE_DEBUG"  # if set, the child's full traceback or output is attached as a note to the exception
Task = Mapping[str, Any]
OnFraction = Callable[[float], None]
"""Called with the completed fraction of a step, 0 to 1."""

_TRY = "load it with mlflow.pyfunc.load_model on this machine, and fix the errors that this reports"
NO_STORE = "no-tracking-server-in-a-bundle"
_STORES = ("MLFLOW_", "AWS_", "DATABRICKS_", "AZURE_", "GOOGLE_", "GCP_", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_PLACES = (  # of settings, weights and data, by default in the home folder
    *("XDG_", "KERAS_HOME", "MPLCONFIGDIR", "MATPLOTLIBRC", "NLTK_DATA", "TORCH_HOME", "SENTENCE_TRANSFORMERS_HOME"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"),
)
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "PYTHONDONTWRITEBYTECODE": "1",
    "TQDM_DISABLE": "1",
}


def run_child(
    module: str,
    task: Mapping[str, object],
    work: Path,
    *,
    environment: Mapping[str, str],
    timeout: float,
    progress: OnFraction | None = None,
) -> dict[str, Any]:
    """Run `python -m module TASK RESULT` in its own session and return its result.

    work: a folder for the child's files, including temporary ones.  timeout: seconds after which the child and its own
    children are killed.  progress: called from another thread with what the child passes to `completed`.
    Raises the child's error, or ModelInvalid with the last line of its output.
    """
    temporary = work / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    task_path, result_path, output_path = work / "task.json", work / "result.json", work / "output.txt"
    fractions, written = os.pipe()
    task_path.write_text(json.dumps({**task, "parent": os.getpid(), "progress": written}))
    result_path.unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", module, str(task_path), str(result_path)]
    follower = threading.Thread(target=_follow, args=(fractions, progress), daemon=True)
    follower.start()
    with output_path.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**thread_environment(environment, usable_cores()), **_QUIET, "TMPDIR": str(temporary)},
                start_new_session=True,
                pass_fds=(written,),
            )
        finally:
            os.close(written)
        timed_out = _wait(process, timeout)
    follower.join(1.0)  # so that no fraction is reported of a later step
    return _result(result_path, output_path, timed_out, process.returncode, timeout)


def isolated_environment(work: Path) -> dict[str, str]:
    """Variables for a child that may only read the bundle: no store, credentials, or settings of this machine.

    Its home is a new, empty folder in `work`.
    """
    home = work / "home"
    home.mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith((*_STORES, *_PLACES))}
    environment |= {"HOME": str(home), "PYTHONUSERBASE": site.getuserbase()}
    environment |= {"MLFLOW_TRACKING_URI": f"{NO_STORE}://", "MLFLOW_REGISTRY_URI": f"{NO_STORE}://"}
    return environment | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def run_task(work: Callable[[Task, Path], Mapping[str, object]], task_path: str, result_path: str) -> None:
    """In the child: write what `work(task, folder)` returns or raises to the result file, atomically.

    The process is killed when its parent dies.
    """
    global _pipe
    task = json.loads(Path(task_path).read_text())
    die_with_parent(task["parent"])
    _pipe = task["progress"]
    os.set_inheritable(_pipe, False)
    os.set_blocking(_pipe, False)
    path = Path(result_path)
    try:
        result = work(task, path.parent)
    except Exception as error:  # noqa: BLE001  any exception of the model is reported
        result = _failure(error)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(result))
    temporary.replace(path)


def completed(fraction: float) -> None:
    """In the child: report which fraction of the task has been completed, 0 to 1.  Elsewhere it does nothing."""
    if _pipe is not None:
        with contextlib.suppress(OSError):  # a full pipe, or a parent that has exited
            os.write(_pipe, f"{fraction:.4f}\n".encode())


_pipe: int | None = None  # file descriptor of the child's progress


def _follow(pipe: int, progress: OnFraction | None) -> None:
    with os.fdopen(pipe, "rb") as lines:
        for line in lines:
            with contextlib.suppress(ValueError):  # the model can write to it too
                if progress is not None:
                    progress(min(1.0, max(0.0, float(line))))


def _failure(error: Exception) -> dict[str, object]:
    """A result that `run_child` raises again: the same LikewiseError, or ModelInvalid for any other exception."""
    unexpected = f"loading the model in a child process failed: {type(error).__name__}: {redacted(str(error))[:TAIL]}"
    known = likewise_cause(error) or ModelInvalid(unexpected, remedy=_TRY)
    raised = {"kind": type(known).__name__, "cause": known.cause, "remedy": known.remedy}
    return {"error": raised, "log": redacted("".join(traceback.format_exception(error)))}


def _wait(process: subprocess.Popen[bytes], timeout: float) -> bool:
    try:
        process.wait(timeout)
        return False
    except subprocess.TimeoutExpired:
        return True
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # including the session's other processes
        process.wait()


def _result(result_path: Path, output_path: Path, timed_out: bool, code: int, timeout: float) -> dict[str, Any]:
    if result_path.is_file():
        result: dict[str, Any] = json.loads(result_path.read_text())
        if (error := result.get("error")) is not None:
            reported = getattr(errors, error["kind"])(error["cause"], remedy=error["remedy"])
            raise _with_log(reported, result.get("log", ""))
        return result
    log = redacted(output_path.read_text(errors="replace").strip())
    last_line = log.rpartition("\n")[2][-TAIL:] or "none"
    how = f"took more than {timeout:.0f} s" if timed_out else f"exited with code {code}"
    failed = ModelInvalid(f"loading the model in a child process {how}; last line of output: {last_line}", remedy=_TRY)
    raise _with_log(failed, log)


def _with_log(error: LikewiseError, log: str) -> LikewiseError:
    if os.environ.get(DEBUG):
        error.add_note(log)
    return error
