"""The worker process: `python -m likewise.workers.child RUN PREPARE LIFELINE`, with inherited file descriptors.

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
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import TypeVar

from likewise.core.engine import Engine, Work
from likewise.core.errors import EngineUnavailable, LikewiseError, ModelFailed
from likewise.core.isolation import isolate, model_aborted
from likewise.core.items import Item
from likewise.core.results import Failed, Result
from likewise.workers.messages import CLOSE, PROTOCOL, pack, sendable, unpack

W = TypeVar("W")
R = TypeVar("R")


def main(handles: Sequence[str]) -> None:
    """Load the engine from the first message, send its spec or the error, then serve requests until CLOSE."""
    run_handle, prepare_handle, lifeline = (int(handle) for handle in handles)
    _set_up_process(run_handle, prepare_handle, lifeline)
    run, prepare = Connection(run_handle), Connection(prepare_handle)
    try:
        engine, spec = _opened(run.recv_bytes())
    except LikewiseError as error:
        run.send_bytes(pack(error))
        return
    run.send_bytes(spec)
    handle_prepare = partial(_handle, partial(_prepare, engine))
    threading.Thread(target=_serve, args=(prepare, handle_prepare), name="likewise-prepare", daemon=True).start()
    _serve(run, partial(_handle, partial(_run, engine)))
    engine.close()


def _set_up_process(*handles: int) -> None:
    faulthandler.enable()
    for number in (signal.SIGINT, signal.SIGTERM):  # also sent to the whole group: the parent drains, then sends CLOSE
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
    except LikewiseError:
        raise
    except BaseException as error:
        traceback.print_exc()
        raise EngineUnavailable(
            f"loading the model in a worker raised {type(error).__name__}: {str(error)[:500]}",
            remedy="see the server's log; load the model in a plain Python process first",
        ) from error


def _serve(connection: Connection, handle: Callable[[bytes], bytes]) -> None:
    """Handle requests until CLOSE arrives."""
    try:
        while (message := connection.recv_bytes()) != CLOSE:
            connection.send_bytes(handle(message))
    except (EOFError, OSError):  # `handle` does not raise, so the parent has exited
        os._exit(0)


def _handle(stage: Callable[[Sequence[W]], Sequence[R | Failed]], message: bytes) -> bytes:
    """The packed results, one per entry, or one error for all. Catches everything, including SystemExit."""
    try:
        results = stage(unpack(message))
        try:
            return pack(results)
        except Exception:  # noqa: BLE001  some value cannot be packed: find out which
            return pack(sendable(results, _unsendable))
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        return pack(model_aborted(error))


def _prepare(engine: Engine, items: Sequence[Item]) -> list[Work | Failed]:
    prepared = isolate(engine.prepare, items)
    return [entry if isinstance(entry, Failed) else _with_pickled_payload(entry) for entry in prepared]


def _run(engine: Engine, work: Sequence[Work]) -> list[Result]:
    return isolate(engine.run, [Work(each.key, each.cost, _unpickled_payload(each)) for each in work])


def _with_pickled_payload(work: Work) -> Work | Failed:
    """`work` with its payload pickled: only workers, which have the model's modules, unpickle it."""
    try:
        return Work(work.key, work.cost, pickle.dumps(work.payload, PROTOCOL))
    except Exception as error:  # noqa: BLE001  a payload's own pickling may raise anything
        return Failed(_unsendable(f"{type(error).__name__}: {str(error)[:300]}"))


def _unpickled_payload(work: Work) -> object:
    return pickle.loads(work.payload) if isinstance(work.payload, bytes) else work.payload  # noqa: S301  from a worker


def _unsendable(why: str) -> ModelFailed:
    return ModelFailed(
        f"the model's result for this item cannot be sent from the worker process: {why}",
        remedy="serve the model without workers, or let it return plain values",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
