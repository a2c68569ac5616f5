"""Processes in the place of container images, by the images' names."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.aws.processes import ProcessContainer, ProcessRunner
from tests.support.processes import children

EMPTY = "empty:1"
"""An image of the service without a bundle: it serves what is at /opt/ml/model."""
QUICK = ("one:1", "two:1")
"""Images of `service.py`."""
COMMAND = (sys.executable, "-S", str(Path(__file__).with_name("service.py")))


def containers() -> int:
    """How many processes stand in for containers of the service."""
    return len(children(os.getpid(), "likewise.container"))


class Images:
    """What the emulator runs: the service with the environment of `images` and of EMPTY, and QUICK; no other image."""

    def __init__(self, images: Mapping[str, Mapping[str, str]]) -> None:
        self._service = ProcessRunner({**images, EMPTY: {}})
        self._quick = ProcessRunner({name: {"LIKEWISE_BUNDLE": f"/{name}"} for name in QUICK}, COMMAND)

    def pull(self, image: str) -> None:
        self._runner(image).pull(image)

    def start(self, image: str, environment: Mapping[str, str], model_dir: Path | None) -> ProcessContainer:
        return self._runner(image).start(image, environment, model_dir)

    def _runner(self, image: str) -> ProcessRunner:
        return self._quick if image in QUICK else self._service
