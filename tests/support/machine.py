"""Programs that tests of a target need; tests are skipped with a reason if one is missing."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest
from tests.support.scheduling import UNTESTED

PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))


def cannot_test(target: str, reason: str) -> NoReturn:
    """Skip the test; the run reports the target and the reason at its end, and fails if CI is set."""
    pytest.skip(f"{UNTESTED}{target}: {reason}")


def need_program(name: str, package: str, target: str = "containers") -> str:
    """The path of a program, else the test is skipped; package: the Debian package that has it."""
    path = shutil.which(name, path=PATH)
    if path is None:
        cannot_test(target, f"{name} is not installed (apt-get install {package})")
    return path
