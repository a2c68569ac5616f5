"""Runs the README's code blocks in a new folder, as a new user would, with the demo's store."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import httpx
import pytest
from tests.support.cli import call
from tests.support.processes import run, running
from tests.support.sentiment_store import Store

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)
SHELL = [line.partition("#")[0].strip() for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
PYTHON = [text for kind, text in BLOCKS if kind == "python"]


@pytest.fixture(scope="module")
def newcomer(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows and with the bundle of the first command, because compiling that takes a minute."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "reviews.csv").write_text("text\nThis is the best movie we saw.\nWhat a movie!\n")
    shutil.copytree(store.bundle, folder / "bundle", copy_function=os.link)
    return folder


def environment(store: Store, folder: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return store.env | {
        "PATH": path,
        "LIKEWISE_CONFIG_HOME": str(folder / "config"),
        "LIKEWISE_CACHE_HOME": str(folder / "cache"),
        "LIKEWISE_DATA_HOME": str(folder / "data"),
    }


def real(line: str, store: Store) -> str:
    """The line with the README's placeholder run id replaced by an existing one."""
    return line.replace("runs:/0a1b…/model", store.model_uri)


def test_install_lines_name_existing_extras() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [
        name for line in SHELL if line.startswith("pip install") for name in re.findall(r"[\w]+", line.split("[")[1])
    ]
    assert named
    assert set(named) <= set(extras)
    assert set(re.findall(r"^\| `(\w+)` \|", README, re.M)) <= set(extras)


def test_make_targets_exist() -> None:
    wanted = set(re.findall(r"make (\w+)", README))
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= wanted
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in wanted)


def test_links_lead_to_existing_files() -> None:
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", README) if not t.startswith("http")]
    assert targets
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_commands_run_as_written(store: Store, newcomer: Path) -> None:
    lines = [line for line in SHELL if line.startswith("likewise")]
    assert {shlex.split(line)[1] for line in lines} >= {"bundle", "serve", "score", "deploy", "trust"}
    env = environment(store, newcomer)
    try:
        run_all(lines, store, newcomer)
        predicted = call("predict", "sentiment", '{"instances": ["What a movie!"]}', cwd=newcomer, env=env)
        assert predicted.returncode == 0, predicted.stderr
        assert "prediction_label" in predicted.stdout
    finally:
        deleted = call("delete", "sentiment", cwd=newcomer, env=env)
    assert deleted.returncode == 0, deleted.stderr
    assert (newcomer / "scored.csv").read_text().count("prediction_label") == 2


def run_all(lines: list[str], store: Store, newcomer: Path) -> None:
    env = environment(store, newcomer)
    for number, line in enumerate(lines):
        _, *words = shlex.split(real(line, store))
        if words[0] == "bundle" and number:
            words[words.index("-o") + 1] = f"bundle-{number}"  # the README's examples are independent of each other
        if words[0] == "serve":
            serve(words, env, newcomer)
            continue
        completed = call(*words, cwd=newcomer, env=env)
        assert completed.returncode == 0, f"{line}\n{completed.stderr}"


def serve(words: list[str], env: dict[str, str], folder: Path) -> None:
    words[words.index("-p") + 1] = "0"
    with running(["likewise", *words, "--json"], folder / "log", cwd=folder, env=env) as server:
        url = server.document()["url"]
        assert httpx.get(f"{url}/ping", timeout=60).status_code == 200
        assert server.stop() == 0


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_blocks_run(store: Store, newcomer: Path, number: int) -> None:
    folder = newcomer / f"python-{number}"  # the blocks write the same files as the commands
    folder.mkdir()
    (folder / "reviews.csv").write_bytes((newcomer / "reviews.csv").read_bytes())
    shutil.copytree(store.bundle, folder / "bundle", copy_function=os.link)
    script = newcomer / f"block_{number}.py"
    script.write_text(real(PYTHON[number], store))
    run([sys.executable, script], cwd=folder, env=environment(store, newcomer))
