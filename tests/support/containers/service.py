"""`python -m likewise.container serve` as a process on this machine, without a container."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.machine import cannot_test
from tests.support.processes import PATIENCE, Running, children, running

SERVE = (sys.executable, "-m", "likewise.container", "serve")


class Service(Running):
    """The running process."""

    def url(self) -> str:
        """Wait until it listens; returns its URL."""
        line = self.line(" at http://")
        return "http://127.0.0.1:" + line.partition(" at http://")[2].partition(";")[0].rpartition(":")[2]

    def ready(self) -> str:
        """Wait until the model is warm; returns the URL."""
        self.line("ready at ")
        return self.url()

    def text(self) -> str:
        """The complete log."""
        return self.log.read_text()


@contextmanager
def service(
    log: Path, settings: Mapping[str, str], prefix: Sequence[str] = (), command: Sequence[str] = SERVE
) -> Iterator[Service]:
    """Run the process with only these settings as its environment; prefix: a command that starts it."""
    env = {"PATH": os.environ["PATH"], "SAGEMAKER_BIND_TO_PORT": "0", "LIKEWISE_HOST": "127.0.0.1", **settings}
    with running([*prefix, *command], log, env=env, pipe=False) as process:
        yield Service(process.process, log)


def first_process() -> list[str]:
    """A command prefix that runs the command as PID 1 of a PID namespace, as in a container."""
    prefix = ["unshare", "--pid", "--fork", "--kill-child"]
    done = subprocess.run([*prefix, "true"], capture_output=True, text=True)
    if done.returncode != 0:
        cannot_test("containers", f"this machine cannot create a PID namespace: {done.stderr.strip()}")
    return prefix


def stop_first(process: Service) -> int:
    """Send SIGTERM to the process that `unshare` started; returns the exit code."""
    (first,) = children(process.pid)
    os.kill(first, signal.SIGTERM)
    return process.process.wait(PATIENCE)
