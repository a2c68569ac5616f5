"""Isolates a child process with Linux namespaces: no network, and selected folders and files hidden."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def isolate_process(hidden: Sequence[Path], kept: Sequence[Path]) -> bool:
    """Isolate this process: no network except its own loopback, `hidden` paths empty, `kept` paths visible.

    Where one of these paths is inside another, the inner one decides about itself; a path in both is kept.
    Call this at the start of a single-threaded process. Returns False, with nothing changed, if the kernel denies it.
    Source: unshare(2), mount(2), user_namespaces(7).
    """
    if sys.platform != "linux" or not _rehearse(hidden, kept):
        return False
    _isolate(hidden, kept)
    return True


def _rehearse(hidden: Sequence[Path], kept: Sequence[Path]) -> bool:
    """Try the isolation in a child process first: a kernel may allow the first steps but not the last."""
    child = os.fork()
    if child == 0:
        try:
            _isolate(hidden, kept)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _isolate(hidden: Sequence[Path], kept: Sequence[Path]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET | (CLONE_NEWUSER if user else 0)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount(libc, "none", "/", None, MS_REC | MS_PRIVATE)
    _hide(libc, hidden, kept)
    _loopback_up()


def _hide(libc: ctypes.CDLL, hidden: Sequence[Path], kept: Sequence[Path]) -> None:
    visible = {path: os.open(path, os.O_PATH) for path in dict.fromkeys(kept) if path.exists()}
    empty = {path.resolve() for path in hidden if path.exists()} - set(visible)
    for path in sorted({*empty, *visible}, key=lambda path: len(path.parts)):  # outer folders first
        if path in visible:
            if not path.exists():  # an outer folder is hidden
                _restore(libc, path, visible[path])
        elif path.is_dir():
            _mount(libc, "none", str(path), "tmpfs", 0)
        elif path.is_file():
            _mount(libc, "/dev/null", str(path), None, MS_BIND)
    for handle in visible.values():
        os.close(handle)


def _restore(libc: ctypes.CDLL, path: Path, handle: int) -> None:
    source = f"/proc/self/fd/{handle}"
    if os.path.isdir(source):
        path.mkdir(parents=True)
    else:  # a zip file of modules
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    _mount(libc, source, str(path), None, MS_BIND | MS_REC)


def _mount(libc: ctypes.CDLL, source: str, target: str, kind: str | None, flags: int) -> None:
    status = libc.mount(source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), None)
    if status != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sh14s", b"lo", IFF_UP, b""))
