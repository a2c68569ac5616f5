"""Drivers on a standalone cluster, each in a process of its own: one that answers, and one that can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.support.spark.cluster import Cluster

DRIVER = Path(__file__).with_name("driver.py")
SPECULATION = {"spark.speculation": "true", "spark.speculation.quantile": "0.3", "spark.speculation.multiplier": "1.2"}
Found = TypeVar("Found")


def question(bundle: Path, texts: Sequence[str], *job: Path) -> dict[str, Any]:
    """What a driver is to answer; job: input and output of a job in the same session."""
    return {"bundle": str(bundle), "texts": list(texts), "job": [str(path) for path in job] or None}


def answers_of_driver(made: Cluster, folder: Path, *questions: Mapping[str, Any]) -> list[Any]:
    """What one `driver.py` on the cluster prints of each question; its files go to `folder`."""
    (folder / "conf").write_text(json.dumps(made.conf))
    (folder / "questions").write_text(json.dumps(questions))
    command = [*made.hosts[0].inside, sys.executable, str(DRIVER), made.master]
    command += [str(folder / "conf"), str(folder / "questions")]
    done = subprocess.run(command, env=made.driver_env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    answers: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


class ClusterJob:
    """`likewise score … --runner spark` on the cluster, with speculation, which can be watched and killed."""

    def __init__(self, made: Cluster, model: Path, source: Path, output: Path, options: Sequence[str] = ()) -> None:
        self.output = output
        self._scored = output.parent / f".{output.name}.likewise-staging" / "scored"
        command = [*made.hosts[0].inside, sys.executable, "-m", "likewise.cli", "score", str(model), str(source)]
        command += ["-o", str(output), "--json", "--runner", "spark", "--master", made.master, *options]
        for name, value in (SPECULATION | made.conf).items():
            command += ["--conf", f"{name}={value}"]
        self._log = output.parent / "driver.log"
        self._out = output.parent / "driver.out"
        with self._out.open("wb") as out, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=made.driver_env, stdout=out, stderr=log, start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()

    @property
    def chunks(self) -> dict[str, int]:
        """The results that are there, each with its file's number."""
        found = {}
        for path in self._scored.glob("*/*"):
            with suppress(FileNotFoundError):  # the job has just ended
                if path.suffix != ".tmp":
                    found[f"{path.parent.name}/{path.name}"] = path.stat().st_ino
        return found

    def until(self, condition: Callable[[], Found]) -> Found:
        """What `condition` says as soon as it is true; the job must not end before."""
        while not (found := condition()):
            assert self._process.poll() is None, self._log.read_text(errors="replace")[-3000:]
            time.sleep(0.01)
        return found

    def reach(self, count: int) -> None:
        """Wait until so many chunks are scored."""
        self.until(lambda: len(self.chunks) >= count)

    def kill(self) -> None:
        """The driver and its JVM; executors end when they notice."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)

    def report(self) -> dict[str, Any]:
        """What it printed at its end."""
        assert self._process.wait(240) == 0, self._log.read_text(errors="replace")[-3000:]
        found: dict[str, Any] = json.loads(self._out.read_bytes())
        return found
