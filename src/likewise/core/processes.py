"""Processes of the operating system."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, whose id is `parent`, dies; Linux only.

    Call it again after any change of credentials, a new user namespace included.  Source: PR_SET_PDEATHSIG(2const).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() != parent:  # it died before
            os._exit(1)
