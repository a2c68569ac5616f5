"""Container images that are replaced by processes, by name."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.aws.processes import ProcessContainer, ProcessRunner
from tests.support.processes import children

EMPTY = "empty:1"
"""An image of the model server without a bundle: it serves the bundle at /opt/ml/model."""
QUICK = ("one:1", "two:1")
"""Images that run `service.py`, which needs no model."""
COMMAND = (sys.executable, "-S", str(Path(__file__).with_name("service.py")))


def containers() -> int:
    """The number of running processes that replace containers of the model server."""
    return len(children(os.getpid(), "likewise.container"))


class Images:
    """A runner for the emulator. images: the model server's environment by image; EMPTY and QUICK are added."""

    def __init__(self, images: Mapping[str, Mapping[str, str]]) -> None:
        self._service = ProcessRunner({**images, EMPTY: {}})
        self._quick = ProcessRunner({name: {"LIKEWISE_BUNDLE": f"/{name}"} for name in QUICK}, COMMAND)

    def pull(self, image: str) -> None:
        self._runner(image).pull(image)

    def start(self, image: str, environment: Mapping[str, str], model_dir: Path | None) -> ProcessContainer:
        return self._runner(image).start(image, environment, model_dir)

    def _runner(self, image: str) -> ProcessRunner:
        return self._quick if image in QUICK else self._service
