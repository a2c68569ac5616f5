"""Control of operating system processes."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent process, with the id `parent`, dies. Linux only.

    Call it again after any change of credentials, including a new user namespace.  Source: PR_SET_PDEATHSIG(2const).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() != parent:  # the parent has already died
            os._exit(1)
