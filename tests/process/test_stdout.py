"""What a model prints, in any way, never mixes with the output of a command, which programs read."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from tests.support.containers.service import SERVE
from tests.support.models import save_upper, seal
from tests.support.processes import LIKEWISE, free_port, likewise, run, running

NOISE = """
import atexit, ctypes, logging, os, subprocess, sys, threading
print("noise: print")
print("noise: begun,", end="")
print("ended", flush=True)
sys.__stdout__.write("noise: write\\n")
logging.getLogger("noise").addHandler(logging.StreamHandler(sys.stdout))
logging.getLogger("noise").error("noise: logging")
os.write(1, b"noise: descriptor\\n")
ctypes.CDLL(None).puts(b"noise: C library")
ctypes.CDLL(None).fflush(None)
subprocess.run(["echo", "noise: child process"], check=True)
os.system("echo noise: shell")
thread = threading.Thread(target=print, args=("noise: thread",))
thread.start()
thread.join()
atexit.register(print, "noise: exit")
"""
KINDS = (
    *("print", "begun,ended", "write", "logging", "descriptor", "C library", "child process", "shell"),
    *("thread", "exit"),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a new user."""
    folder = tmp_path_factory.mktemp("home")
    return {**os.environ, **{f"LIKEWISE_{name}_HOME": str(folder / name) for name in ("DATA", "CACHE", "CONFIG")}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that makes noise while it loads and in each prediction."""
    example = pd.DataFrame({"text": ["example"]})
    return save_upper(
        tmp_path_factory.mktemp("noisy") / "bundle" / "model", loading=NOISE, predicting=NOISE, input_example=example
    )


@pytest.fixture(scope="module")
def bundle(model: Path) -> str:
    return str(seal(model.parent).path)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    path.write_text("text\na\nb\n")
    return str(path)


def assert_printed(log: str, kinds: tuple[str, ...] = KINDS) -> None:
    assert [kind for kind in kinds if f"noise: {kind}\n" not in log] == []


def document(*words: str, env: Mapping[str, str], cwd: Path) -> tuple[dict[str, Any], str]:
    """The JSON document that a command prints as all of its stdout, and its stderr."""
    done = likewise(*words, "--json", env=env, cwd=cwd)
    return dict(json.loads(done.stdout)), done.stderr


def test_score(bundle: str, rows: str, home: dict[str, str], tmp_path: Path) -> None:
    report, log = document("score", bundle, rows, "-o", "out.csv", "--trust", env=home, cwd=tmp_path)
    assert report["rows_ok"] == 2
    assert_printed(log)


def test_verify(bundle: str, rows: str, home: dict[str, str], tmp_path: Path) -> None:
    against = [word for backend in ("mlflow", "local") for word in ("--against", backend)]
    parity, log = document("verify", bundle, *against, "--golden", rows, "--trust", env=home, cwd=tmp_path)
    assert [backend["same"] for backend in parity["places"]] == [2, 2]
    assert_printed(log)


def test_bundle(model: Path, home: dict[str, str], tmp_path: Path) -> None:
    built, _ = document("bundle", str(model), "-o", "built", "--trust", "--no-measure", env=home, cwd=tmp_path)
    assert built["engines"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve(bundle: str, home: dict[str, str], tmp_path: Path, workers: str) -> None:
    command = [*LIKEWISE, "serve", bundle, "-p", "0", "--trust", "--json", "--workers", workers]
    with running(command, tmp_path / "log", env=home) as server:
        url = server.document()["url"]
        response = httpx.post(f"{url}/invocations", json={"inputs": ["a"]}, timeout=60)
        assert response.json() == {"predictions": ["A"]}
        assert server.stop() == 0
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""
        assert_printed(server.log.read_text())


def test_container(bundle: str, tmp_path: Path) -> None:
    settings = {"SAGEMAKER_BIND_TO_PORT": str(free_port()), "LIKEWISE_HOST": "127.0.0.1", "LIKEWISE_TRUST": "true"}
    env = {"PATH": os.environ["PATH"], "LIKEWISE_BUNDLE": bundle, "PYTHONPATH": os.pathsep.join(sys.path), **settings}
    with running(SERVE, tmp_path / "log", env=env) as server:
        server.line("ready at ")
        server.stop()
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""
        assert_printed(server.log.read_text())


def test_mlflow_run_local(bundle: str, home: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mlflow", "deployments", "run-local", "-t", "likewise:/local"]
    options = ["-m", bundle, "--name", "noisy", "-C", "port=0"]
    with running([*command, *options], tmp_path / "log", env=home) as server:
        assert server.process.stdout is not None
        url = server.process.stdout.readline().strip()
        assert httpx.post(url, json={"inputs": ["a"]}, timeout=60).json() == {"predictions": ["A"]}
        server.stop()
        assert "noise" not in server.process.stdout.read().replace("noise: exit\n", "")  # after Likewise has returned
        assert_printed(server.log.read_text(), KINDS[:-1])


def test_as_a_library_a_model_prints_where_python_does(bundle: str, home: dict[str, str], tmp_path: Path) -> None:
    code = f"""
import likewise, pandas
with likewise.open_bundle({bundle!r}, trust=True) as bundle:
    print(bundle.predict(pandas.DataFrame({{"text": ["a"]}})))
"""
    done = run([sys.executable, "-c", code], env=home, cwd=tmp_path)
    assert "['A']\n" in done.stdout
    assert_printed(done.stdout)
    assert "noise" not in done.stderr


def test_closed_pipe_ends_quietly(bundle: str, rows: str, home: dict[str, str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [*LIKEWISE, "score", bundle, rows, "-o", "out.csv", "--trust", "--json"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=home, cwd=tmp_path, text=True)
    os.close(writing)
    assert done.returncode == 1
    assert_printed(done.stderr)
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_closed_stderr_loses_the_noise_only(bundle: str, rows: str, home: dict[str, str], tmp_path: Path) -> None:
    words = [*LIKEWISE, "score", bundle, rows, "-o", "out.csv", "--trust", "--json"]
    done = run(["sh", "-c", '"$@" 2>&-', "sh", *words], env=home, cwd=tmp_path)
    assert json.loads(done.stdout)["rows_ok"] == 2


@pytest.mark.parametrize("terminal", ["stdout", "stderr"])
def test_tables_are_for_terminals(bundle: str, rows: str, home: dict[str, str], tmp_path: Path, terminal: str) -> None:
    """Whether stdout is a terminal decides how a result looks, although the model's stdout is stderr."""
    ours, theirs = pty.openpty()
    env = {name: value for name, value in home.items() if name not in ("NO_COLOR", "FORCE_COLOR")} | {"TERM": "xterm"}
    command = [*LIKEWISE, "score", bundle, rows, "-o", "out.csv", "--trust"]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, terminal: theirs}
    with subprocess.Popen(command, env=env, cwd=tmp_path, text=True, **streams) as process:
        os.close(theirs)
        shown = _read(ours)
        out, _ = process.communicate()
    assert process.returncode == 0
    if terminal == "stdout":
        assert "Scored" in shown
        assert "\x1b[" in shown
        assert "noise" not in shown
    else:
        assert out.startswith("output\tout.csv\n")
        assert "noise: print" in shown


def _read(terminal: int) -> str:
    """Everything that is written to a terminal until it is closed."""
    parts = []
    try:
        while part := os.read(terminal, 65536):
            parts.append(part)
    except OSError:  # closed
        pass
    os.close(terminal)
    return b"".join(parts).decode()


def test_help_and_version_are_results() -> None:
    assert "Usage" in likewise("score", "--help").stdout
    assert likewise("--version").stdout.strip()
    assert json.loads(likewise("score", "--json", code=2).stdout)["error"]["code"] == "WRONG_USAGE"
