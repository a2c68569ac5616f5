"""Ends a process in time after a signal to stop, and with it the processes that it started. Linux only.

Python handles a signal when its main thread executes Python code, which may be never: a C call can hold the GIL.
Python's C code, however, writes the signal's number to a pipe at once. The watchdog at its other end is this file, run
as a script: it kills the process if that has not exited in time. Standard library only.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_S = 2.0  # after another Ctrl-C
TERMINATE_S = 0.5  # for processes that clean up after SIGTERM
KILL_S = 2.0  # for processes to disappear; those that hang in the kernel do not
_PAUSE_S = 0.01
_PR_SET_CHILD_SUBREAPER = 36
# They remove the shared memory and the files of other processes when those have exited, and then exit.
_JANITORS = (b"resource_tracker", b"torch_shm_manager")

_watchdog: subprocess.Popen[bytes] | None = None
_signals: int | None = None  # where Python's C code writes the signals' numbers


def end_in_time(limit_s: float) -> None:
    """Let this process exit at most `limit_s` after a signal to stop, and its descendants with it.

    For programs, in their main thread, before they run a model. Descendants include daemons: orphans become children
    of this process. Call `watch_signals` after anything that sets Python's wakeup file descriptor, as event loops do.
    """
    global _watchdog, _signals
    if sys.platform != "linux" or _signals is not None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))
    reading, _signals = os.pipe()
    os.set_blocking(_signals, False)
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(limit_s)]
    with suppress(OSError):  # no more processes: only a C call that holds the GIL is not interrupted then
        _watchdog = subprocess.Popen(  # in another session, which Ctrl-C in the terminal does not reach
            command, stdin=reading, stdout=subprocess.DEVNULL, cwd="/", start_new_session=True
        )
    os.close(reading)
    watch_signals()
    os.register_at_fork(after_in_child=_forget)
    atexit.register(end_descendants)


def watch_signals() -> None:
    """Let the watchdog learn of signals, if there is one."""
    if _watchdog is not None and _signals is not None:
        signal.set_wakeup_fd(_signals, warn_on_full_buffer=False)


def _forget() -> None:
    """In a fork: its signals are not this process's, and its children are its own."""
    global _watchdog, _signals
    _watchdog = _signals = None
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)


def end_descendants() -> None:
    """If this process is to end in time, end all processes below it.

    Those that clean up after the others, and then exit by themselves, are left to do so.
    """
    if _signals is not None and _sees_itself():
        watchdog = None if _watchdog is None else _watchdog.pid
        _end(lambda: [pid for pid in descendants(os.getpid()) if pid != watchdog])


def end_started_by(leader: int, mark: str) -> None:
    """Kill what a process has started that led a session and has exited.  Elsewhere than on Linux: in its session.

    mark: an environment variable, NAME=VALUE, that the process was started with, and that no other has.
    """
    if sys.platform != "linux" or not _sees_itself():
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
        return
    entry = mark.encode()
    _end(lambda: [pid for pid in _processes() if entry in _read(pid, "environ").split(b"\0")], terminate_s=0.0)


def descendants(pid: int) -> list[int]:
    """The running processes below `pid`."""
    parents = {each: parent for each in _processes() if (parent := _parent(each)) is not None}
    found, level = list[int](), {pid}
    while level := {each for each, parent in parents.items() if parent in level}:
        found += level
    return found


def _end(find: Callable[[], Iterable[int]], terminate_s: float = TERMINATE_S) -> None:
    """Send SIGTERM to the processes that `find` returns, then SIGKILL, until there are none."""
    started = time.monotonic()
    while running := [pid for pid in find() if not _is_janitor(pid)]:
        waited = time.monotonic() - started
        if waited > KILL_S:
            return
        for pid in running:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM if waited < terminate_s else signal.SIGKILL)
        time.sleep(_PAUSE_S)


def _sees_itself() -> bool:
    """Whether /proc is that of this process's namespace: else its numbers are those of other processes."""
    return os.readlink("/proc/self") == str(os.getpid())


def _is_janitor(pid: int) -> bool:
    return any(name in _read(pid, "cmdline") for name in _JANITORS)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _parent(pid: int) -> int | None:
    """The parent's process id; None for a process that has exited."""
    state, parent = [*_read(pid, "stat").rpartition(b")")[2].split()[:2], b"X", b"0"][:2]
    return None if state in b"ZX" else int(parent)


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


# --- the watchdog ----------------------------------------------------------------------------------------------------


def watch(pid: int, limit_s: float) -> None:
    """Kill the process `pid`, this one's parent, if it still runs `limit_s` after the first signal to stop."""
    process = os.pidfd_open(pid)
    if os.getppid() == pid and _overran(process, limit_s):  # else it has exited, and the number may be another's
        with suppress(OSError):
            sys.stderr.write(f"process {pid} did not exit within {limit_s:g} s of a signal to stop: it is killed\n")
            sys.stderr.flush()
        _kill(process, pid)


def _overran(process: int, limit_s: float) -> bool:
    """Whether the process is still there when its time has passed."""
    deadline: float | None = None
    while deadline is None or time.monotonic() < deadline:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([process, 0], [], [], left)
        numbers = os.read(0, 64) if 0 in ready else b""
        if process in ready or (ready and not numbers):  # it has exited, or runs another program now
            return False
        for number in numbers:
            if number in STOPPING and deadline is None:
                deadline = time.monotonic() + limit_s
            elif number == signal.SIGINT and deadline is not None:
                deadline = min(deadline, time.monotonic() + AGAIN_S)
    return True


def _kill(process: int, pid: int) -> None:
    """Kill the process and its descendants; it is stopped first, so that orphans do not leave it."""
    signal.pidfd_send_signal(process, signal.SIGSTOP)
    if _sees_itself():
        _end(lambda: [each for each in descendants(pid) if each != os.getpid()], terminate_s=0.0)
    signal.pidfd_send_signal(process, signal.SIGKILL)


def main(arguments: Sequence[str]) -> None:
    """Run the watchdog: PID SECONDS; stdin: the numbers of the signals that the process gets, one byte each."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    with suppress(ProcessLookupError):
        watch(int(arguments[0]), float(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
