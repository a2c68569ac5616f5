"""`likewise serve --workers 2` on a small model: what callers see of killed workers, and what is left at the end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import mlflow
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from tests.process.service_room import PATIENCE, Served, until

pytestmark = pytest.mark.slow
CALLERS = 12
SIGNATURE = ModelSignature(Schema([ColSpec("string", "text")]), Schema([ColSpec("string", "text")]))
MODEL = """
import time

import mlflow


class Slow(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        time.sleep(0.03)
        return [text.upper() for text in model_input["text"]]


mlflow.models.set_model(Slow())
"""


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """The command, on a model that was saved a moment ago."""
    (folder / "code.py").write_text(MODEL)
    mlflow.pyfunc.save_model(
        str(folder / "model"),
        python_model=str(folder / "code.py"),
        signature=SIGNATURE,
        pip_requirements=["mlflow"],
    )
    home = {"LIKEWISE_CONFIG_HOME": str(folder / "config"), "LIKEWISE_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "likewise.cli", "serve", str(folder / "model"), "-p", "0", "--trust", "--json"]
    log = folder / "server.log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [*command, "--workers", "2"], stdout=subprocess.PIPE, stderr=stderr, text=True, env=os.environ | home
        ) as process,
    ):
        try:
            yield Served(process, said(process)["url"], log)
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> dict[str, str]:
    """The one document that `--json` prints, once the service is ready."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if text.count("{") == text.count("}"):
            break
    document = json.loads(text)
    assert "url" in document, document
    return dict(document)


def children(pid: int) -> set[int]:
    """The worker processes of `pid`."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"likewise.workers.child" in stat.with_name("cmdline").read_bytes():
                found.add(int(stat.parent.name))
        except OSError:  # it has ended
            continue
    return found


def lives(pid: int) -> bool:
    """Whether it runs still; one that nobody has waited for yet does not."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


class Callers:
    """Ask one request after another until told to end; each answer must be there, and be right."""

    def __init__(self, url: str) -> None:
        self.statuses: list[int] = []
        self._url = url
        self._over = asyncio.Event()

    async def ask(self, name: int) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=PATIENCE) as client:
            for i in range(1_000_000):
                if self._over.is_set():
                    return
                answer = await client.post("/invocations", json={"inputs": [f"caller {name}, text {i}"]})
                self.statuses.append(answer.status_code)
                if answer.status_code == 200:
                    assert answer.json() == {"predictions": [f"CALLER {name}, TEXT {i}"]}
                else:
                    assert answer.status_code == 503, answer.text
                    assert int(answer.headers["Retry-After"]) >= 1
                    assert answer.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"

    async def answered(self, more: int) -> None:
        """Until so many more are answered with 200."""
        wanted = self.statuses.count(200) + more
        await until(lambda: self.statuses.count(200) >= wanted)

    def end(self) -> None:
        self._over.set()


async def kill_under_load(running: Served) -> None:
    pid = running.process.pid
    callers = Callers(running.url)
    asking = asyncio.gather(*(callers.ask(name) for name in range(CALLERS)))
    for killed in range(1, 4):
        await callers.answered(20)
        before = children(pid)
        assert len(before) == 2
        os.kill(min(before) if killed % 2 else max(before), signal.SIGKILL)
        await until(lambda: len(children(pid) - before) == 1 and len(children(pid)) == 2)  # noqa: B023  awaited here
        await until(lambda: restarts(running.url) == killed)  # noqa: B023
        await callers.answered(20)
    for one in children(pid):
        os.kill(one, signal.SIGKILL)  # nobody is left who could answer
    await callers.answered(20)
    callers.end()
    await asking
    assert 503 in callers.statuses


def restarts(url: str) -> int:
    page = httpx.get(f"{url}/metrics", timeout=PATIENCE).text
    line = next(line for line in page.splitlines() if line.startswith("likewise_worker_restarts{"))
    return int(float(line.split()[-1]))


def test_a_killed_worker_costs_only_what_it_held_and_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        asyncio.run(kill_under_load(running))
        workers = children(running.process.pid)
        assert len(workers) == 2
        assert running.stop() == 0
        # one that was loading is killed by its lifeline when the server has gone, and that is seen a moment later
        asyncio.run(until(lambda: not any(map(lives, workers))))
