"""`likewise demo` from end to end with few rows: it creates the reported files and leaves no process running."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from tests.support.cli import call
from tests.support.processes import LIKEWISE, PATIENCE, command_of, run, running
from tests.support.sentiment_store import ROWS, Store, environment

from likewise.cli.demo import closing, missing, plan
from likewise.cli.demo_steps import LOCAL, ON_RAY, Demo, label
from likewise.cli.walk import LIKEWISE as COMMAND
from likewise.cli.walk import MARKER, Walk, typed
from likewise.core.errors import LikewiseError, OutputRefused
from likewise.doctor import MachineFinding, examine

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
    assert {label(each) for each in facts["answer"]} <= {"positive", "negative"}  # the small model errs
    assert facts["answer"][0]["model_metadata"]["finetuned_model_uri"] == facts["finetuned_model_uri"]
    assert "compares it" in facts["not_run"]["Spark"]
    for name in ("bundle/likewise.json", "scored.csv", "scored.csv.likewise.json", "serve.log", "mlflow.db"):
        assert (store.folder / name).is_file()
    assert "trained on 3,840 reviews" in log
    assert "accuracy on 853 held-out reviews" in log
    assert "batches, loss" in log
    assert "mlflow" not in "".join(line for line in log.splitlines() if "INFO" in line or "WARNING" in line)
    assert "Successfully registered" not in log
    assert running_in(store.folder) == []


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("ray", [False, pytest.param(True, marks=pytest.mark.long)], ids=["without Ray", "with Ray"])
def test_bundle_is_deployed_compared_and_deleted(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], ray: bool
) -> None:
    skipped = missing(examine(), full=False) | ({} if ray else {"Ray Serve": "it has a long test"})
    demo = Demo(tmp_path, quick=True, rows=ROWS, tracking_uri=store.tracking_uri, missing=skipped)
    demo.prepare()
    shutil.copytree(store.bundle, tmp_path / "bundle", copy_function=os.link)
    shutil.copy(store.folder / "rows.csv", tmp_path)
    demo.deploy()
    spark = ["spark"] if shutil.which("java") else []
    targets = [LOCAL, *([ON_RAY] if ray else ())]
    assert demo.facts["verify"] == dict.fromkeys([*targets, *spark, "mlflow"], "agrees")
    assert set(skipped) - {"Ray Serve"} == {"SageMaker"} | ({"Spark"} if not spark else set())
    assert json.loads(call("list", "--json", env=store.env | demo.walk.env).stdout) == {"deployments": []}
    own = [str(tmp_path), *([demo.walk.env["RAY_ADDRESS"]] if ray else ())]
    assert [each for each in commands() if any(word in each for word in own)] == []
    assert (tmp_path / "verify.html").is_file()
    assert f"$ likewise deploy bundle --to local --name {LOCAL}\n" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_command_runs_all_steps(tmp_path: Path) -> None:
    done = run([*LIKEWISE, *DEMO], cwd=tmp_path, env=environment() | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    facts = json.loads(done.stdout)
    assert facts["spark"] == {"rows": ROWS, "equal": ROWS}
    assert set(facts["verify"].values()) == {"agrees"}
    assert {each["what"] for each in facts["made"]} >= {"bundle", "comparison", "deleted"}
    assert running_in(tmp_path) == []


def test_only_the_demos_own_store_is_used(store: Store) -> None:
    assert store.facts["tracking_uri"] == store.tracking_uri
    assert Demo(Path("out"), quick=True, rows=1, tracking_uri="http://u:p@host").setup[-1].endswith("=http://host")


@pytest.mark.long
def test_stopping_during_training_leaves_nothing_running(tmp_path: Path) -> None:
    with running([*LIKEWISE, *DEMO], tmp_path / "log", cwd=tmp_path, env=environment()) as demo:
        demo.line("batches, loss")
        assert len(running_in(tmp_path)) >= 2  # the demo and its step
        demo.process.terminate()
        assert demo.document()["error"]["code"] == "INTERRUPTED"
        assert demo.process.wait(PATIENCE) == 130
        assert running_in(tmp_path) == []


def test_stopping_lets_the_current_step_clean_up(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Walk(tmp_path).run(sys.executable, "-c", CLEANS_UP)
    assert not (tmp_path / "staging").exists()
    assert running_in(tmp_path) == []


def test_step_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likewise.cli.walk.STOP_TIMEOUT_S", 0.1)
    with pytest.raises(KeyboardInterrupt):
        Walk(tmp_path).run(sys.executable, "-c", STUBBORN)
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
        Walk(folder).prepare_folder()
    assert [path.name for path in folder.iterdir()] == [MARKER]
    (folder / MARKER).unlink()
    (folder / "file").touch()
    with pytest.raises(OutputRefused, match="not empty"):
        Walk(folder).prepare_folder()


def test_deployments_of_a_failed_demo_are_deleted(store: Store, tmp_path: Path) -> None:
    demo = Demo(tmp_path, quick=True, rows=1)
    demo.walk.env = {"LIKEWISE_DATA_HOME": str(tmp_path / "data")}
    shutil.copytree(store.bundle, tmp_path / "bundle", copy_function=os.link)

    def deploy_and_stop() -> None:
        with demo._deleted_afterwards() as names:
            demo._deploy("local", LOCAL, names)
            assert any(str(tmp_path) in each for each in commands())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy_and_stop()
    assert [each for each in commands() if str(tmp_path) in each] == []
    assert not (tmp_path / "data" / "local" / LOCAL).exists()


def test_failed_command_is_reported_with_its_cause(tmp_path: Path) -> None:
    with pytest.raises(LikewiseError, match=r"^likewise inspect nothing exited with code 1: .*nothing"):
        Walk(tmp_path).run(*COMMAND, "inspect", "nothing", "--json")


def test_commands_are_shown_as_a_user_types_them() -> None:
    assert typed([*COMMAND, "list", "--json"]) == "likewise list"
    assert typed([sys.executable, "-m", "likewise.demo", "register"]) == "python -m likewise.demo register"
    assert typed(["curl", "-d", "a b"]) == "curl -d 'a b'"


def test_what_is_missing_is_named_with_its_remedy(tmp_path: Path) -> None:
    findings = [MachineFinding("Java", "missing", "not found", "install Java 17"), MachineFinding("ray", "ok", "2.60")]
    assert missing(findings, full=True) == {"Spark": "Java is missing: install Java 17"}
    assert set(missing(findings, full=False)) == {"Spark", "SageMaker"}
    lines = "\n".join(plan(Demo(tmp_path, quick=True, rows=1, missing=missing(findings, full=True))))
    assert "without Spark" in lines
    assert "install Java 17" in lines
    assert "minutes on two cores" in lines
    assert "mlflow.db in this folder" in lines


def test_commands_of_the_closing_screen_have_lines_without_anything_else(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "it's a folder", quick=True, rows=1)
    with demo.walk.step("Title", "thing [x]") as done:
        done("about [y]", "place", "likewise list")
    lines = list(closing(demo, 1.0))
    assert "    likewise list" in lines
    assert f"    cd {shlex.quote(str(demo.folder))}" in lines
    assert "thing \\[x]" in lines[-3]


def commands() -> list[str]:
    """The command lines of all processes."""
    return [command_of(int(path.name)) for path in Path("/proc").glob("[0-9]*")]


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
