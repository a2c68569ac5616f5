"""What the README shows is run, block by block, by a newcomer in an empty folder beside the demo's store."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest
from tests.support.sentiment_store import Store

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)
SHELL = [line.partition("#")[0].strip() for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
PYTHON = [text for kind, text in BLOCKS if kind == "python"]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "reviews.csv").write_text("text\nThis is the best movie we saw.\nWhat a movie!\n")
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
    """The line with the README's made-up run id replaced by one that exists."""
    return line.replace("runs:/0a1b…/model", store.model_uri)


def test_the_install_lines_name_extras_that_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [
        name for line in SHELL if line.startswith("pip install") for name in re.findall(r"[\w]+", line.split("[")[1])
    ]
    assert named
    assert set(named) <= set(extras)
    assert set(re.findall(r"^\| `(\w+)` \|", README, re.M)) <= set(extras)


def test_the_make_targets_exist() -> None:
    wanted = set(re.findall(r"make (\w+)", README))
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= wanted
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in wanted)


def test_the_links_lead_somewhere() -> None:
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", README) if not t.startswith("http")]
    assert targets
    assert [t for t in targets if not (ROOT / t).exists()] == []


@pytest.mark.slow
def test_the_commands_work_as_they_stand(store: Store, newcomer: Path) -> None:
    lines = [line for line in SHELL if line.startswith("likewise")]
    assert {shlex.split(line)[1] for line in lines} >= {"bundle", "serve", "score", "deploy", "trust"}
    try:
        run_all(lines, store, newcomer)
        asked = likewise("predict", "sentiment", '{"instances": ["What a movie!"]}', store=store, folder=newcomer)
        assert asked.returncode == 0, asked.stderr
        assert "prediction_label" in asked.stdout
    finally:
        down = likewise("delete", "sentiment", store=store, folder=newcomer)
    assert down.returncode == 0, down.stderr
    assert (newcomer / "scored.csv").read_text().count("prediction_label") == 2


def likewise(*argv: str, store: Store, folder: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "likewise.cli", *argv]
    return subprocess.run(words, cwd=folder, env=environment(store, folder), capture_output=True, text=True)


def run_all(lines: list[str], store: Store, newcomer: Path) -> None:
    for number, line in enumerate(lines):
        argv = shlex.split(real(line, store))
        if "-o" in argv and argv[1] == "bundle" and number:
            argv[argv.index("-o") + 1] = f"bundle-{number}"  # the README's examples are not one session
        if argv[1] == "serve":
            serve(argv, environment(store, newcomer), newcomer)
            continue
        done = subprocess.run(argv, cwd=newcomer, env=environment(store, newcomer), capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def serve(argv: list[str], env: dict[str, str], folder: Path) -> None:
    argv[argv.index("-p") + 1] = "0"
    server = subprocess.Popen([*argv, "--json"], cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        document = "".join(iter(server.stdout.readline, "}\n"))
        url = re.search(r"http://[\d.:]+", document)
        assert url
        assert httpx.get(f"{url[0]}/ping", timeout=60).status_code == 200
    finally:
        server.terminate()
        assert server.wait(60) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_the_python_blocks_run(store: Store, newcomer: Path, number: int) -> None:
    script = newcomer / f"block_{number}.py"
    # A fresh folder each: the blocks name the same outputs as the commands above do.
    folder = newcomer / f"python-{number}"
    folder.mkdir()
    (folder / "reviews.csv").write_bytes((newcomer / "reviews.csv").read_bytes())
    script.write_text(real(PYTHON[number], store))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=environment(store, newcomer), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
