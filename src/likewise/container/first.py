"""Process 1 of a container: passes signals on to the program, its child, and collects what has exited.

The kernel lets no process of the container kill process 1, even if that hangs, and makes all orphans its children.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import partial
from types import FrameType

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def leave_first_process() -> None:
    """If this is process 1, return in a child of it; process 1 itself exits when the child does.

    Call it before threads are started.
    """
    if os.getpid() != 1:
        return
    child = os.fork()
    if not child:
        os.setsid()  # a terminal's Ctrl-C then reaches it once, through process 1
        return
    for number in PASSED_ON:
        signal.signal(number, partial(_pass_on, child))
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _pass_on(child: int, number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    with suppress(ProcessLookupError):
        os.kill(child, number)
