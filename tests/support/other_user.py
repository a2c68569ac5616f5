"""Files of another user, as only root can create them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

OTHER = 65534  # `nobody`

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can create files of another user")


def give_away(path: Path) -> None:
    """Make the other user the owner of `path` and everything below it; links are not followed."""
    for each in (path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())):
        os.chown(each, OTHER, OTHER, follow_symlinks=False)


def as_other_user(work: Callable[[], object]) -> str:
    """Call `work` in a process of the other user; returns its exception as text, empty if there was none."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setgid(OTHER)
            os.setuid(OTHER)
            work()
        except BaseException as error:  # noqa: BLE001  reported to the parent
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as stream:
        return stream.read()
