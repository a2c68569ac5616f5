"""The worker process: `python -m likewise.workers.child SOCKET LIFELINE`, with inherited file descriptors.

It exits when its parent does, whatever it is doing, and ignores signals other than the parent's.
"""

from __future__ import annotations

import faulthandler
import fcntl
import io
import os
import pickle
import select
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection

from likewise.core.ending import STOPPING
from likewise.core.engine import Engine, counters
from likewise.core.errors import EngineUnavailable, LikewiseError, ModelFailed
from likewise.core.isolation import answers, describe, traceback_of
from likewise.workers.messages import CLOSE, pack, sendable, unpack


def main(handles: Sequence[str]) -> None:
    """Load the engine from the first message, send its spec or the error, then serve requests until CLOSE."""
    socket, lifeline = (int(handle) for handle in handles)
    _set_up_process(socket, lifeline)
    connection = Connection(socket)
    try:
        engine, spec = _opened(connection.recv_bytes())
    except LikewiseError as error:
        connection.send_bytes(pack(error))
        return
    connection.send_bytes(spec)
    _serve(connection, partial(_answers, engine, Counter[str]()))
    engine.close()


def _set_up_process(*handles: int) -> None:
    faulthandler.enable()
    for number in STOPPING:  # also sent to the whole group: the parent drains, then sends CLOSE
        signal.signal(number, signal.SIG_IGN)
    for handle in handles:
        os.set_inheritable(handle, False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a crash must not swallow what the model printed
    _exit_with_parent(handles[-1])


def _exit_with_parent(lifeline: int) -> None:
    """Let the kernel kill this process when the pipe's other end closes, even while a model holds the GIL for hours.

    Nothing is ever written to the pipe. Source: fcntl(2), F_SETOWN and O_ASYNC. On systems other than Linux, where
    SIGIO does not kill the process, closing the sockets does.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it is already closed
        os._exit(1)


def _opened(message: bytes) -> tuple[Engine, bytes]:
    """The engine and its packed spec. Raises the opener's LikewiseError, or EngineUnavailable for its other errors."""
    try:
        sys.path[:], opener = unpack(message)
        engine: Engine = pickle.loads(opener)()  # noqa: S301  sent by the parent
        return engine, pack(engine.spec)
    except LikewiseError as error:
        sys.stderr.write(traceback_of(error))  # for the log: the parent gets only the message
        raise
    except BaseException as error:
        traceback.print_exc()
        raise EngineUnavailable(
            f"loading the model in a worker raised {type(error).__name__}: {describe(error)}",
            remedy="see the server's log; load the model in a plain Python process first",
        ) from error


def _serve(connection: Connection, handle: Callable[[bytes], bytes]) -> None:
    """Handle requests until CLOSE arrives."""
    try:
        while (message := connection.recv_bytes()) != CLOSE:
            connection.send_bytes(handle(message))
    except (EOFError, OSError):  # `handle` does not raise, so the parent has exited
        os._exit(0)


def _answers(engine: Engine, reported: Counter[str], message: bytes) -> bytes:
    """The packed answers, one per item, or one error for all, and what the engine has counted in the meantime.

    reported: what it had counted before.  Catches everything, including SystemExit.
    """
    try:
        found = answers(engine, unpack(message))
        counted = Counter(counters(engine))
        new = dict(counted - reported)
        reported.update(new)
        try:
            return pack((found, new))
        except BaseException:  # noqa: BLE001  some value cannot be packed: find out which
            found = [(cost, result) for cost, each in found for result in sendable([each], _unsendable)]
            return pack((found, new))
    except BaseException as error:  # noqa: BLE001  of the engine, not of an item
        traceback.print_exc()
        return pack(
            ModelFailed(
                f"the model aborted with {type(error).__name__}: {describe(error)}",
                remedy="see the server's log and fix the model",
            )
        )


def _unsendable(why: str) -> ModelFailed:
    return ModelFailed(
        f"the model's result for this item cannot be sent from the worker process: {why}",
        remedy="let the model return plain values, or serve it with --in-process",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
