"""`python -m likewise.container serve` as a process of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import Running, running

SERVE = (sys.executable, "-m", "likewise.container", "serve")


class Service(Running):
    """The process."""

    def url(self) -> str:
        """Where it listens, once it does."""
        line = self.line(" at http://")
        return "http://127.0.0.1:" + line.partition(" at http://")[2].partition(";")[0].rpartition(":")[2]

    def ready(self) -> str:
        """Its URL, once the model is warm."""
        self.line("ready at ")
        return self.url()

    def text(self) -> str:
        """All that it has written."""
        return self.log.read_text()


@contextmanager
def service(
    log: Path, settings: Mapping[str, str], prefix: Sequence[str] = (), command: Sequence[str] = SERVE
) -> Iterator[Service]:
    """The process with these settings and nothing else of this process's environment; prefix: what starts it."""
    env = {"PATH": os.environ["PATH"], "SAGEMAKER_BIND_TO_PORT": "0", "LIKEWISE_HOST": "127.0.0.1", **settings}
    with running([*prefix, *command], log, env=env, pipe=False) as process:
        yield Service(process.process, log)
