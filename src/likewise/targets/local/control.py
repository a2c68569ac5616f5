"""Talking to a supervisor: one JSON line there, one back, over a Unix socket in the deployment's folder.

Standard library only.
"""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BACKLOG = 16


class Gone(Exception):
    """No supervisor answers there: it has ended, or it hangs."""


def ask(path: Path, timeout_s: float, do: str, **more: Any) -> dict[str, Any]:
    """The supervisor's reply to `do`.  Raises Gone."""
    try:
        with _near(path) as near, socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(timeout_s)
            sock.connect(near)
            sock.sendall(json.dumps({"do": do, **more}).encode() + b"\n")
            with sock.makefile("rb") as stream:
                line = stream.readline()
    except OSError as error:
        raise Gone(f"{type(error).__name__}: {error}") from error
    if not line.endswith(b"\n"):
        raise Gone("it ended without a reply")
    reply: dict[str, Any] = json.loads(line)
    return reply


def open_control(path: Path) -> socket.socket:
    """The socket that a supervisor is asked at; whoever calls knows that there is no other supervisor."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    with _near(path) as near:
        sock.bind(near)
    path.chmod(0o600)
    sock.listen(BACKLOG)
    return sock


@contextmanager
def _near(path: Path) -> Iterator[str]:
    """A short name of `path`: the address of a Unix socket may have about a hundred bytes, a path more."""
    with tempfile.TemporaryDirectory(prefix="likewise-") as folder:
        link = Path(folder, "at")
        link.symlink_to(path.parent.absolute())
        yield str(link / path.name)
