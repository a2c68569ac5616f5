"""What this machine must have to see a target; where it lacks that, tests are skipped and say what was not seen."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

SYSTEM = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))


def cannot_see(target: str, reason: str) -> NoReturn:
    """Skip the test, as this machine cannot show what the target does; with CI=true it fails instead."""
    text = f"cannot see {target}: {reason}"
    if os.environ.get("CI") == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def need_program(name: str, package: str, target: str = "containers") -> str:
    """The path of a program, by which a target is seen; package: Debian's."""
    found = shutil.which(name, path=SYSTEM)
    if found is None:
        cannot_see(target, f"{name} is not installed (apt-get install {package})")
    return found
