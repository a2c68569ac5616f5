"""Ctrl-C and SIGKILL at many points of a command leave nothing, or something that the next command completes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import call
from tests.support.interrupt import moments, run_interrupted
from tests.support.local import left_in, processes_in
from tests.support.processes import command_of, until

from likewise import deployments
from likewise.bundles.open import open_bundle
from likewise.testing.models import pyfunc_bundle, upper_bundle

pytestmark = pytest.mark.xdist_group("local")
SIGNALS = [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGKILL]
POINTS = [pytest.param(2, id="few"), pytest.param(20, id="many", marks=pytest.mark.long)]
DEPLOY = ["--to", "local", "--name", "one", "--trust", "-C", "drain_linger_s=0.1", "--json"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {mark: upper_bundle(folder / mark, f"{mark}:") for mark in ("1", "2")}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for the data, the cache and the temporary files of the commands."""
    for name, folder in (("LIKEWISE_DATA_HOME", "data"), ("LIKEWISE_CACHE_HOME", "cache"), ("TMPDIR", "tmp")):
        (tmp_path / folder).mkdir(mode=0o700)
        monkeypatch.setenv(name, str(tmp_path / folder))
    yield tmp_path
    for pid in processes_in(tmp_path / "data"):
        os.kill(pid, signal.SIGKILL)


def run(home: Path, *words: str | Path, at: int | None = None, number: signal.Signals = signal.SIGKILL) -> int:
    """Run a command that gets the signal before its operation `at`; its exit code, or the number of operations."""
    code, operations = run_interrupted(words, home / "out", at=at, number=number)
    if at is None:
        assert code == 0, (home / "out").read_text() + (home / "out.err").read_text()
        return operations
    assert code in (0, -number, 130), (home / "out").read_text() + (home / "out.err").read_text()
    return code


def listed() -> dict[str, str]:
    return {each.name: each.state for each in deployments.listed(states=False)}


def left(home: Path) -> list[str]:
    """Everything that is left of deployments: files, processes, temporary files."""
    return left_in(home / "data") + [str(path) for path in (home / "tmp").iterdir()]


def deploy(model: Path) -> None:
    deployments.deploy(model, "local", "one", {"drain_linger_s": "0.1"}, trust=True)


def predicted() -> object:
    return json.loads(deployments.predict("one", b'{"inputs": ["a"]}').body)["predictions"][0]


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("number", SIGNALS)
def test_interrupted_deployment_is_listed_and_resumed_or_deleted(
    home: Path, models: dict[str, Path], number: signal.Signals, points: int
) -> None:
    operations = run(home, "deploy", models["1"], *DEPLOY)
    deployments.delete("one")
    for turn, at in enumerate(moments(operations, points)):
        code = run(home, "deploy", models["1"], *DEPLOY, at=at, number=number)
        state = listed()
        if code == 130:
            error = json.loads((home / "out").read_text())["error"]
            assert error["code"] == "INTERRUPTED"
            if state:
                assert "likewise delete one" in error["remedy"]
        if not state:
            assert left_in(home / "data") == [], at
            continue
        assert state["one"] in ("create unfinished", *([""] if code == 0 or number == signal.SIGKILL else []))
        if turn % 2 and state["one"]:
            deploy(models["1"])
            assert listed() == {"one": ""}
            assert predicted() == "1:A"
        deployments.delete("one")
        assert (listed(), left(home)) == ({}, []), at


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("number", SIGNALS)
def test_interrupted_update_is_completed_or_undone(
    home: Path, models: dict[str, Path], number: signal.Signals, points: int
) -> None:
    deploy(models["1"])
    operations = run(home, "update", "one", models["2"], "--trust")
    deployments.update("one", models["1"], trust=True)
    for turn, at in enumerate(moments(operations, points)):
        run(home, "update", "one", models["2"], "--trust", at=at, number=number)
        assert listed()["one"] in ("", "update unfinished")
        assert predicted() in ("1:A", "2:A")
        if turn % 2:
            deployments.update("one", models["2"], trust=True)
            assert predicted() == "2:A"
        deployments.update("one", models["1"], trust=True)
        assert (predicted(), listed()) == ("1:A", {"one": ""})
    deployments.delete("one")
    assert (listed(), left(home)) == ({}, [])


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("number", SIGNALS)
def test_interrupted_deletion_is_completed_by_the_next(
    home: Path, models: dict[str, Path], number: signal.Signals, points: int
) -> None:
    deploy(models["1"])
    operations = run(home, "delete", "one")
    for at in moments(operations, points):
        deploy(models["1"])
        run(home, "delete", "one", at=at, number=number)
        if state := listed():
            assert state["one"] in ("", "delete unfinished")
            deployments.delete("one")
        assert (listed(), left(home)) == ({}, []), at


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("number", SIGNALS)
def test_interrupted_job_is_resumed_and_leaves_only_its_output(
    home: Path, models: dict[str, Path], number: signal.Signals, points: int
) -> None:
    (home / "in.csv").write_text("text\n" + "".join(f"t{n}\n" for n in range(300)))

    def score(name: str, at: int | None = None) -> int:
        words = ["score", models["1"], home / "in.csv", "-o", home / name, "--trust", "--window", "50"]
        return run(home, *words, at=at, number=number)

    operations = score("whole.csv")
    before = {path.name for path in home.iterdir()}
    for at in moments(operations, points):
        output = home / f"{at}.csv"
        if score(output.name, at) != 0:
            if output.exists():  # it was complete, and only the staging folder may be left
                words = ["score", models["1"], home / "in.csv", "-o", output, "--trust"]
                assert run_interrupted(words, home / "out")[0] == 1
                assert "already exists" in (home / "out.err").read_text()
            else:
                score(output.name)
        assert output.read_bytes() == (home / "whole.csv").read_bytes(), at
        new = {path.name for path in home.iterdir()} - before
        assert new == {output.name + more for more in ("", ".likewise.json", ".quarantine.parquet")}, at
        assert [*(home / "tmp").iterdir()] == []
        for path in new:
            (home / path).unlink()


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("number", SIGNALS)
def test_interrupted_build_of_a_bundle_leaves_nothing_after_the_next(
    home: Path, number: signal.Signals, points: int
) -> None:
    model = pyfunc_bundle(home / "logged", "p:") / "model"

    def build(at: int | None = None) -> int:
        return run(home, "bundle", model, "-o", home / "bundle", "--trust", at=at, number=number)

    operations = build()
    shutil.rmtree(home / "bundle")
    before = {path.name for path in home.iterdir()}
    for at in moments(operations, points):
        if build(at) != 0:
            until(lambda: not processes_with(str(home / "tmp")))  # they are killed with the command
            if number != signal.SIGKILL and (home / "bundle").exists():
                assert not [*home.glob(".bundle*")], at
            build()  # also removes what a killed one may have left
        assert open_bundle(home / "bundle").manifest.measured["proved"]
        shutil.rmtree(home / "bundle")
        assert {path.name for path in home.iterdir()} == before, at
        assert [*(home / "tmp").iterdir()] == [], at


def processes_with(word: str) -> list[int]:
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if word in command_of(pid)]


def test_sighup_ends_a_job_like_ctrl_c(home: Path, models: dict[str, Path]) -> None:
    (home / "in.csv").write_text("text\na\n")
    command = ["score", models["1"], home / "in.csv", "-o", home / "out.csv", "--trust", "--json"]
    operations = run(home, *command)
    (home / "out.csv").unlink()
    (home / "out.csv.likewise.json").unlink()
    (home / "out.csv.quarantine.parquet").unlink()
    code, _ = run_interrupted(command, home / "out", at=operations // 2, number=signal.SIGHUP)
    assert code == 130
    assert json.loads((home / "out").read_text())["error"]["code"] == "INTERRUPTED"


def test_damaged_record_does_not_end_list_and_can_be_deleted(home: Path, models: dict[str, Path]) -> None:
    import sqlite3

    run(home, "deploy", models["1"], *DEPLOY)
    with sqlite3.connect(home / "data" / "receipts.db") as database:
        database.execute('UPDATE receipts SET receipt = \'{"target": "local"\'')
        database.execute("INSERT INTO receipts VALUES ('local', 'two', '{}')")
        database.execute("INSERT INTO runs VALUES ('local', 'three', X'FF', '[]')")
    result = call("list", "--json")
    assert result.returncode == 0, result.stderr
    states = {each["name"]: each for each in json.loads(result.stdout)["deployments"]}
    assert {name: each["state"] for name, each in states.items()} == dict.fromkeys(states, "record unreadable")
    assert states.keys() == {"one", "two", "three"}
    assert "likewise delete one --to local" in states["one"]["remedy"]
    for name in states:
        result = call("delete", name, "--to", "local", "--json")
        assert result.returncode == 0, result.stdout
    assert (listed(), left(home)) == ({}, [])
