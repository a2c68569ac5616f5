"""Control of operating system processes."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
OWN = "likewise-environment.json"  # in an environment with a model's own versions, once it is complete
_BOUND = (
    "import ctypes, os, signal, sys; signal.pthread_sigmask(signal.SIG_SETMASK, ()); "
    f"ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(signal.SIGKILL)}); "
    "os.getppid() == int(sys.argv[1]) and os.execvp(sys.argv[2], sys.argv[2:])"
)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent process, with the id `parent`, dies. Linux only.

    Call it again after any change of credentials, including a new user namespace.  Source: PR_SET_PDEATHSIG(2const).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() != parent:  # the parent has already died
            os._exit(1)


def own_python() -> str:
    """This Python if it is in an environment with a model's own versions; else an empty string."""
    return sys.executable if Path(sys.prefix, OWN).is_file() else ""


def outer_python() -> str:
    """The Python that runs Likewise outside of such an environment: the one that created it, if it still exists."""
    if own_python():
        creator = str(json.loads(Path(sys.prefix, OWN).read_bytes())["creator"])
        return creator if Path(creator).is_file() else sys.executable
    return sys.executable


def bound(command: Sequence[str]) -> list[str]:
    """`command`, which is killed when this process dies. Linux only.

    Not by `preexec_fn`: its hooks swallow the exception of a signal that arrives in them.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _BOUND, str(os.getpid()), *command]
