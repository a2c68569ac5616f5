"""`python -m likewise.container serve` as a process on this machine, without a container."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import Running, running

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
