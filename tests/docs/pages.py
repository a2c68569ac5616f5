"""The code blocks of the documentation, and a reader who follows a page: saves its files, runs its commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from tests.docs.generated import ROOT
from tests.support.processes import Running, free_port, running

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.md")))
_FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)
SHELL = ("bash", "sh", "console", "")  # languages of blocks with commands


@dataclass(frozen=True)
class Block:
    """A fenced block. title: the file that its text belongs in, if it has one."""

    kind: str
    title: str
    text: str

    @property
    def serves(self) -> bool:
        """Whether its command runs in the foreground until Ctrl-C."""
        return self.text.startswith("likewise serve")


def blocks(page: Path) -> list[Block]:
    return [Block(*match.groups("")) for match in _FENCE.finditer(page.read_text())]


def commands(page: Path, program: str) -> Iterator[list[str]]:
    """The words of each command that starts with `program`, without comments, up to a pipe, redirection or `||`."""
    for block in blocks(page):
        if block.kind in SHELL and not block.title:
            for line in _lines(block.text.replace("\\\n", " ")):
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words[:1] == [program]:
                    yield list(takewhile(lambda word: word[0:1] not in {"|", ">", "&", ";"} and word != "2>", words))


def _lines(text: str) -> Iterator[str]:
    """The lines of shell code; one line if a quoted text continues over several."""
    line = ""
    for each in text.splitlines():
        line += each
        try:
            shlex.split(line, comments=True)
        except ValueError:  # an open quotation
            continue
        yield line
        line = ""


def follow(page: Path, folder: Path, env: Mapping[str, str]) -> None:
    """Do in `folder` what a reader of the page does, and compare the outputs that it shows.

    Blocks with a title are files.  `likewise serve` runs until the end of the page, on a free port instead of 5000.  A
    block of `text` or `json` shows the output of the commands before it: see `assert_shows`.
    """
    port, output = free_port(), ""
    with ExitStack() as servers:
        for block in blocks(page):
            text = block.text.replace(":5000", f":{port}")
            if block.title:
                (folder / block.title).write_text(text)
            elif block.serves:
                server = servers.enter_context(_served(shlex.split(text), port, folder, env))
                output = server.log.read_text()
            elif block.kind == "bash":
                output = _run(text, folder, env)
            elif block.kind in ("text", "json"):
                assert_shows(text, output)


def assert_shows(shown: str, output: str) -> None:
    """Assert that `output` has the lines of `shown` in this order; `…` stands for any text, spaces for any space."""
    at = 0
    for line in filter(None, map(str.strip, shown.splitlines())):
        pattern = r"\s+".join(re.escape(word).replace("…", ".*") for word in line.split())
        found = re.compile(pattern).search(output, at)
        assert found, f"not in the output: {line}\n{output[at:]}"
        at = found.end()


def reader(home: Path) -> dict[str, str]:
    """The environment of a new user, who has Likewise on the path and whose MLflow has no settings.

    MLflow logs its default requirements: inferring them from the imports takes longer than all else on a page.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "LIKEWISE_"))}
    homes = {f"LIKEWISE_{name}_HOME": str(home / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | homes | {"PATH": path, "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "1"}


def _run(text: str, folder: Path, env: Mapping[str, str]) -> str:
    """Run commands of a shell, which must succeed; returns their output."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout[-4000:]}"
    return done.stdout


@contextmanager
def _served(words: list[str], port: int, folder: Path, env: Mapping[str, str]) -> Iterator[Running]:
    """Run `likewise serve …` on `port` until the end of `with`; starts when it is ready."""
    with running([*words, "--port", str(port)], folder / "serve.log", cwd=folder, env=env, pipe=False) as server:
        server.wait_for_response(f"http://127.0.0.1:{port}/ready")
        yield server
