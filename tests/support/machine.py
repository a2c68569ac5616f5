"""What this machine must have so that a target can be tested; where it lacks that, tests are skipped and name it."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest
from tests.support.scheduling import UNSEEN

PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))


def cannot_see(target: str, reason: str) -> NoReturn:
    """Skip the test; the run names the target and the reason at its end, and fails where CI is set."""
    pytest.skip(f"{UNSEEN}{target}: {reason}")


def need_program(name: str, package: str, target: str = "containers") -> str:
    """The path of a program; package: Debian's."""
    found = shutil.which(name, path=PATH)
    if found is None:
        cannot_see(target, f"{name} is not installed (apt-get install {package})")
    return found
