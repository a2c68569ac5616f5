"""Control of operating system processes."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
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


def bound(command: Sequence[str]) -> list[str]:
    """`command`, which is killed when this process dies. Linux only.

    Not by `preexec_fn`: its hooks swallow the exception of a signal that arrives in them.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _BOUND, str(os.getpid()), *command]
