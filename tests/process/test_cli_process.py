"""Commands with unusable input: error code, cause and remedy, no traceback, no files left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import mlflow
import pytest
from tests.support.cli import call
from tests.support.models import upper
from tests.support.processes import LIKEWISE
from tests.support.sentiment_store import Store, environment

from likewise.pipeline import DetectLanguage, Pipeline, Respond
from likewise.testing.models import upper_bundle

SCORE = ["score", "BUNDLE", "rows.csv", "--column", "review=text"]


@pytest.fixture
def bundle(store: Store) -> Path:
    return store.bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.csv").write_text("review\nThis is the best movie we saw.\n")
    return tmp_path


def fails(argv: list[str], folder: Path, env: dict[str, str]) -> dict[str, str]:
    """The error that a command prints as JSON, after checking its plain output."""
    home = {"LIKEWISE_CONFIG_HOME": str(folder / "config"), "LIKEWISE_CACHE_HOME": str(folder / "cache")}
    for form in ([], ["--json"]):
        done = call(*argv, *form, cwd=folder, env=env | home)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
    return dict(json.loads(done.stdout)["error"])


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["score", "BUNDLE", "gone.csv", "-o", "out.csv"], "INPUT_NOT_FOUND", "gone.csv"),
        (["score", "BUNDLE", "rows.csv", "-o", "out.csv"], "INPUT_INVALID", "review"),
        (
            ["score", "BUNDLE", "rows.csv", "-o", "no/such/folder/out.csv", "--column", "review=text"],
            "OUTPUT_REFUSED",
            "",
        ),
        (["score", "BUNDLE", "rows.csv", "-o", "rows.csv", "--column", "review=text"], "OUTPUT_REFUSED", "rows.csv"),
        (
            ["score", "BUNDLE", "rows.csv", "-o", "o.csv", "--column", "review=text", "--engine", "x"],
            "ENGINE_UNAVAILABLE",
            "x",
        ),
        (["serve", "BUNDLE", "-p", "0", "--engine", "pyfunc"], "CODE_NOT_TRUSTED", "BUNDLE"),
        (["inspect", "models:/inference_pipeline_model/99"], "MODEL_NOT_FOUND", "99"),
        (["inspect", "models:/inference_pipeline_model@best"], "MODEL_NOT_FOUND", "best"),
        (
            ["bundle", "runs:/0123456789abcdef0123456789abcdef/model", "-o", "out"],
            "MODEL_NOT_FOUND",
            "0123456789abcdef",
        ),
        (["bundle", "models:/inference_pipeline_model/1", "-o", "rows.csv"], "OUTPUT_REFUSED", "rows.csv"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_invalid_input_is_reported(
    store: Store, bundle: Path, folder: Path, argv: list[str], code: str, text: str
) -> None:
    before = sorted(path.name for path in folder.iterdir())
    error = fails([str(bundle) if word == "BUNDLE" else word for word in argv], folder, store.env)
    assert error["code"] == code
    assert text.replace("BUNDLE", str(bundle)) in error["cause"]
    assert error["remedy"]
    assert sorted(p.name for p in folder.iterdir() if p.name not in ("cache", "config")) == before


def test_unreachable_tracking_server_is_reported(store: Store, folder: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # reserves the port without listening
        uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
        error = fails(["bundle", "models:/m/1", "-o", "out"], folder, store.env | {"MLFLOW_TRACKING_URI": uri})
    assert error["code"] == "STORE_UNREACHABLE"
    assert uri in error["cause"]


def test_port_in_use_is_reported(store: Store, bundle: Path, folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        error = fails(["serve", str(bundle), "-p", str(taken.getsockname()[1])], folder, store.env)
    assert error["code"] == "PORT_TAKEN"
    assert str(os.getpid()) in error["cause"] + error["remedy"]


@pytest.mark.parametrize("command", ["bundle", "score"])
def test_full_disk_is_reported(store: Store, bundle: Path, folder: Path, tiny_disk: Path, command: str) -> None:
    (folder / "many.csv").write_text("text\n" + "".join(f"{os.urandom(400).hex()}\n" for _ in range(3000)))
    argv = {
        "bundle": ["bundle", store.uri, "-o", str(tiny_disk / "out")],
        "score": ["score", str(bundle), str(folder / "many.csv"), "-o", str(tiny_disk / "out.csv")],
    }[command]
    filler = tiny_disk / "filler"
    free = shutil.disk_usage(tiny_disk).free
    filler.write_bytes(b"0" * max(0, free - 64 * 1024))  # full at once: a job of some seconds keeps its rows to resume
    error = fails(argv, folder, store.env)
    assert error["code"] == "OUTPUT_REFUSED"
    assert "space" in error["cause"].lower()
    assert list(tiny_disk.iterdir()) == [filler]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_job_leaves_nothing(store: Store, bundle: Path, folder: Path, stop: signal.Signals) -> None:
    (folder / "many.csv").write_text("text\n" + "".join(f"{i} {'good ' * 200}\n" for i in range(20_000)))
    argv = [*LIKEWISE, "score", str(bundle), "many.csv", "-o", "out.csv", "--json"]
    job = subprocess.Popen(argv, cwd=folder, env=store.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while job.poll() is None and not list(folder.glob(".out.csv*")):
        pass  # until it starts to write
    job.send_signal(stop)
    out, err = job.communicate(timeout=60)
    assert job.returncode == 130, err
    assert json.loads(out)["error"]["code"] == "INTERRUPTED"
    assert "Traceback" not in err
    assert sorted(p.name for p in folder.iterdir()) == ["many.csv", "rows.csv"]


def test_corrupted_bundle_is_reported(store: Store, bundle: Path, folder: Path) -> None:
    copy = folder / "copy"
    shutil.copytree(bundle, copy)
    weights = next(copy.rglob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(bytes(data))
    for argv in (
        ["inspect", str(copy)],
        ["serve", str(copy), "-p", "0"],
        ["score", str(copy), "rows.csv", "-o", "o.csv"],
    ):
        error = fails(argv, folder, store.env)
        assert error["code"] == "BUNDLE_TAMPERED"
        assert weights.name in error["cause"]


def test_model_uri_is_bundled_into_the_cache_once(folder: Path) -> None:
    """Uses a pipeline that needs neither trust nor torch, by the URI of its run and by that of the registry."""
    env = environment() | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "LIKEWISE_CACHE_HOME": str(folder / "cache"),
    }
    mlflow.set_tracking_uri(env["MLFLOW_TRACKING_URI"])
    try:
        experiment = mlflow.create_experiment("one", artifact_location=(folder / "artifacts").as_uri())
        declared = {"row_wise": True, "pipeline": Pipeline(DetectLanguage(), Respond(), fitting=False).declaration()}
        with mlflow.start_run(experiment_id=experiment) as started:
            mlflow.pyfunc.log_model(
                name="model", registered_model_name="model", metadata={"likewise": declared}, **upper()
            )
    finally:
        mlflow.set_tracking_uri(None)
    by_run, by_run_again, by_registry = (
        call("inspect", uri, "--json", cwd=folder, env=env)
        for uri in (f"runs:/{started.info.run_id}/model", f"runs:/{started.info.run_id}/model", "models:/model/1")
    )
    first, second, third = (json.loads(done.stdout) for done in (by_run, by_run_again, by_registry))
    assert first["digest"] == second["digest"] == third["digest"]
    assert first["path"] == second["path"] == third["path"]
    assert Path(first["path"]).is_relative_to(folder / "cache")
    assert "verifying" in by_run.stderr
    assert "verifying" not in by_run_again.stderr + by_registry.stderr


def test_model_that_ends_its_process_fails_the_command(folder: Path) -> None:
    bundle = upper_bundle(folder / "leaves", "x", predicting="__import__('os')._exit(0)")
    (folder / "texts.csv").write_text("text\na\nb\n")
    command = [*LIKEWISE, "score", str(bundle), "texts.csv", "-o", "out.csv", "--trust", "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "NOTHING_SCORED"
    assert "os._exit(0)" in error["cause"]
