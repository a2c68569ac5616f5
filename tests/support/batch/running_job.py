"""`likewise score … --runner NAME` in a separate process, which can be watched and killed."""

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

Value = TypeVar("Value")


class RunningJob:
    """The process of a job whose chunks are scored by workers on a cluster."""

    def __init__(
        self,
        model: Path,
        source: Path,
        output: Path,
        options: Sequence[str],
        env: Mapping[str, str],
        inside: Sequence[str] = (),
    ) -> None:
        """options: with `--runner`.  inside: the command that runs another one on the driver's host."""
        self.output = output
        self._staging = output.parent / f".{output.name}.likewise-staging"
        command = [*inside, sys.executable, "-m", "likewise.cli", "score", str(model), str(source)]
        command += ["-o", str(output), "--json", *options]
        self._log = output.parent / "driver.log"
        self._out = output.parent / "driver.out"
        with self._out.open("wb") as out, self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=env, stdout=out, stderr=log, start_new_session=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()

    @property
    def chunks(self) -> set[str]:
        """The names of the chunks with results."""
        waiting = (path for path in (self._staging / "scored").glob("*/*") if path.suffix != ".tmp")
        return {f"{path.parent.name}/{path.name}" for path in waiting} | set(chunks_in_output(self._staging))

    def until(self, condition: Callable[[], Value]) -> Value:
        """The value of `condition` when it becomes true; the job must not exit before."""
        while not (value := condition()):
            assert self._process.poll() is None, self._log.read_text(errors="replace")[-3000:]
            time.sleep(0.01)
        return value

    def reach(self, count: int) -> None:
        """Wait until `count` chunks are scored."""
        self.until(lambda: len(self.chunks) >= count)

    def kill(self) -> None:
        """Kill the driver and its children; workers exit when they notice."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)

    def report(self) -> dict[str, Any]:
        """Wait for the job; the report that it printed."""
        code = self._process.wait(240)
        assert code == 0, f"exit code {code}: {self._log.read_text(errors='replace')[-3000:]}"
        report: dict[str, Any] = json.loads(self._out.read_bytes())
        return report


def chunks_in_output(staging: Path) -> list[str]:
    """The names of the chunks whose results are in the output, by the files in the staging folder of a job."""
    with suppress(FileNotFoundError):  # the job has not cut its input yet, or has just finished
        parts = json.loads((staging / "snapshot.json").read_bytes())["parts"]
        names = [f"{part['folder']}/{number:06d}" for part in parts for number in range(len(part["rows"]))]
        lines = [line for line in (staging / "journal.jsonl").read_bytes().splitlines(True) if line.endswith(b"\n")]
        return names[: json.loads(lines[-1]).get("chunks", 0)]
    return []
