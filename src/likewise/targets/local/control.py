"""The supervisor's control protocol: one JSON line per request and response, over a Unix socket in the folder.

Standard library only.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from likewise.core.scratch import scratch_folder

BACKLOG = 16
OPEN_FILES = Path("/proc/self/fd")  # of Linux


class SupervisorUnavailable(Exception):
    """The supervisor does not respond: it has exited, or it hangs."""


def send(path: Path, timeout_s: float, command: str, **params: Any) -> dict[str, Any]:
    """Send a command to the supervisor; returns its reply.  Raises SupervisorUnavailable."""
    try:
        with _short_path(path) as short, socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(timeout_s)
            sock.connect(short)
            sock.sendall(json.dumps({"do": command, **params}).encode() + b"\n")
            with sock.makefile("rb") as stream:
                line = stream.readline()
    except OSError as error:
        raise SupervisorUnavailable(f"{type(error).__name__}: {error}") from error
    if not line.endswith(b"\n"):
        raise SupervisorUnavailable("it exited without a reply")
    reply: dict[str, Any] = json.loads(line)
    return reply


def open_control(path: Path) -> socket.socket:
    """Create the control socket, replacing an old one; the caller ensures that no other supervisor is running."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    with _short_path(path) as short:
        sock.bind(short)
    path.chmod(0o600)
    sock.listen(BACKLOG)
    return sock


@contextmanager
def _short_path(path: Path) -> Iterator[str]:
    """A short alias of `path`: the address of a Unix socket is limited to about a hundred bytes, a path is not."""
    if not OPEN_FILES.is_dir():
        with scratch_folder("likewise-scratch-") as folder:
            (folder / "at").symlink_to(path.parent.absolute())
            yield str(folder / "at" / path.name)
        return
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield str(OPEN_FILES / str(handle) / path.name)
    finally:
        os.close(handle)
