"""`likewise demo` from end to end with few rows: it creates the reported files and leaves no process running."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from tests.support.cli import call
from tests.support.processes import LIKEWISE, PATIENCE, running
from tests.support.sentiment_store import ROWS, Store, environment

from likewise.cli.demo import MARKER, Demo
from likewise.core.errors import OutputRefused

DEMO = ["demo", "-o", "out", "--quick", "--rows", str(ROWS), "--json"]

# A child process that must clean up; it sends Ctrl-C to its parent as soon as it has started.
CLEANS_UP = """
import os, signal, sys, threading
from pathlib import Path
from likewise.cli.app import raise_interrupt
signal.signal(signal.SIGTERM, raise_interrupt)
Path("staging").touch()
try:
    os.kill(os.getppid(), signal.SIGINT)
    threading.Event().wait()
finally:
    os.kill(os.getpid(), signal.SIGTERM)  # the child gets two signals: the terminal's Ctrl-C and the demo's SIGTERM
    Path("staging").unlink()
"""

STUBBORN = """
import os, signal, threading
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.kill(os.getppid(), signal.SIGINT)
threading.Event().wait()
"""


@pytest.mark.timeout(1800)
def test_demo_runs_from_end_to_end(store: Store) -> None:
    facts, log = store.facts, store.log
    assert facts["accuracy"] > 0.65
    assert facts["score"]["rows_in"] == facts["score"]["rows_ok"] == ROWS
    assert facts["score"]["duplicates"] > 0
    assert {"en", "fr", "de", "es", "zh"} <= facts["languages"].keys()
    assert len(facts["answer"]) == 2
    assert facts["answer"][0]["model_metadata"]["finetuned_model_uri"] == facts["finetuned_model_uri"]
    assert facts["spark"] == ({"rows": ROWS, "equal": ROWS} if shutil.which("java") else "not run: no Java")
    for name in ("bundle/likewise.json", "scored.csv", "scored.csv.likewise.json", "serve.log", "mlflow.db"):
        assert (store.folder / name).is_file()
    assert "trained on 2,560 reviews" in log
    assert "accuracy on 853 held-out reviews" in log
    assert "batches, loss" in log
    assert "mlflow" not in "".join(line for line in log.splitlines() if "INFO" in line or "WARNING" in line)
    assert "Successfully registered" not in log
    assert running_in(store.folder) == []


def test_stopping_during_training_leaves_nothing_running(tmp_path: Path) -> None:
    with running([*LIKEWISE, *DEMO], tmp_path / "log", cwd=tmp_path, env=environment()) as demo:
        demo.line("batches, loss")
        assert len(running_in(tmp_path)) >= 2  # the demo and its step
        demo.process.terminate()
        assert demo.document()["error"]["code"] == "INTERRUPTED"
        assert demo.process.wait(PATIENCE) == 130
        assert running_in(tmp_path) == []


def test_stopping_lets_the_current_step_clean_up(tmp_path: Path) -> None:
    demo = Demo(tmp_path, quick=True, rows=1)
    with pytest.raises(KeyboardInterrupt):
        demo._run(sys.executable, "-c", CLEANS_UP)
    assert not (tmp_path / "staging").exists()
    assert running_in(tmp_path) == []


def test_step_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likewise.cli.demo.STOP_TIMEOUT_S", 0.1)
    with pytest.raises(KeyboardInterrupt):
        Demo(tmp_path, quick=True, rows=1)._run(sys.executable, "-c", STUBBORN)
    assert running_in(tmp_path) == []


def test_foreign_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out" / "bundle").mkdir(parents=True)
    (tmp_path / "out" / "bundle" / "mine").touch()
    done = call(*DEMO, cwd=tmp_path, env=environment())
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (1, "OUTPUT_REFUSED")
    assert "-o" in error["remedy"]
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["bundle", "mine"]


def test_folder_of_the_demo_is_reused(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for _ in range(2):
        Demo(folder, quick=True, rows=1)._prepare_folder()
    assert [path.name for path in folder.iterdir()] == [MARKER]
    (folder / MARKER).unlink()
    (folder / "file").touch()
    with pytest.raises(OutputRefused, match="not empty"):
        Demo(folder, quick=True, rows=1)._prepare_folder()


def running_in(folder: Path) -> list[str]:
    """Command lines of the processes whose working folder is in `folder`."""
    command_lines = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve().is_relative_to(folder):
                command_lines.append((entry / "cmdline").read_text())
        except OSError:
            continue
    return command_lines
