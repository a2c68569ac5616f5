"""`likewise demo`, whole, on few rows: what it says that it made is there, and nothing is left running."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROWS = 60


def test_the_chapter_from_end_to_end(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | {"HF_HUB_OFFLINE": "1"}
    argv = [sys.executable, "-m", "likewise.cli", "demo", "-o", "out", "--quick", "--rows", str(ROWS), "--json"]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads(done.stdout)
    assert facts["accuracy"] > 0.75
    assert facts["score"]["rows_in"] == facts["score"]["rows_ok"] == ROWS
    assert facts["score"]["duplicates"] > 0
    assert {"en", "fr", "de", "es", "zh"} <= facts["languages"].keys()
    assert len(facts["answer"]) == 2
    assert facts["answer"][0]["model_metadata"]["finetuned_model_uri"] == facts["finetuned_model_uri"]
    assert facts["spark"] == ({"rows": ROWS, "equal": ROWS} if shutil.which("java") else "not run: no Java")
    for name in ("bundle/likewise.json", "scored.csv", "scored.csv.likewise.json", "serve.log", "mlflow.db"):
        assert (tmp_path / "out" / name).is_file()
    assert running_in(tmp_path) == []


def running_in(folder: Path) -> list[str]:
    """Command lines of processes whose working folder lies in `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve().is_relative_to(folder):
                found.append((entry / "cmdline").read_text())
        except OSError:
            continue
    return found
