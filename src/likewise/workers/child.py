"""The worker's own process: `python -m likewise.workers.child RUN PREPARE LIFELINE`, numbers of inherited handles.

It ends with its parent, whatever it is doing, and by nobody's signal but the parent's.
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
from likewise.core.isolation import broken_off, isolate
from likewise.core.items import Item
from likewise.core.results import Failed, Result
from likewise.workers.messages import CLOSE, PROTOCOL, pack, sendable, unpack

W = TypeVar("W")
R = TypeVar("R")


def main(handles: Sequence[str]) -> None:
    """Load the engine that the first message names, say its spec or why it has none, then answer until told to end."""
    run_handle, prepare_handle, lifeline = (int(handle) for handle in handles)
    _settle_in(run_handle, prepare_handle, lifeline)
    run, prepare = Connection(run_handle), Connection(prepare_handle)
    try:
        engine, spec = _opened(run.recv_bytes())
    except LikewiseError as error:
        run.send_bytes(pack(error))
        return
    run.send_bytes(spec)
    answers = partial(_answers, partial(_prepare, engine))
    threading.Thread(target=_serve, args=(prepare, answers), name="likewise-prepare", daemon=True).start()
    _serve(run, partial(_answers, partial(_run, engine)))
    engine.close()


def _settle_in(*handles: int) -> None:
    faulthandler.enable()
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group too: the parent drains, then says when
        signal.signal(number, signal.SIG_IGN)
    for handle in handles:
        os.set_inheritable(handle, False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a crash must not swallow what the model printed
    _end_with_parent(handles[-1])


def _end_with_parent(lifeline: int) -> None:
    """Let the kernel end this process when the pipe's other end closes, though a model hold Python's lock for hours.

    Nothing is ever written to it. Source: fcntl(2), F_SETOWN and O_ASYNC; where SIGIO ends nobody (not on Linux), the
    end of the sockets does.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it closed before
        os._exit(1)


def _opened(message: bytes) -> tuple[Engine, bytes]:
    """The engine and its packed spec; every other error is made one of ours."""
    try:
        sys.path[:], opener = unpack(message)
        engine: Engine = pickle.loads(opener)()  # noqa: S301  the parent's
        return engine, pack(engine.spec)
    except LikewiseError:
        raise
    except BaseException as error:
        traceback.print_exc()
        raise EngineUnavailable(
            f"loading the model in a worker raised {type(error).__name__}: {str(error)[:500]}",
            remedy="read the server's log; load the model in a plain Python process first",
        ) from error


def _serve(connection: Connection, answer: Callable[[bytes], bytes]) -> None:
    """Answer until CLOSE comes."""
    try:
        while (message := connection.recv_bytes()) != CLOSE:
            connection.send_bytes(answer(message))
    except (EOFError, OSError):  # `answer` raises nothing: the parent is gone
        os._exit(0)


def _answers(stage: Callable[[Sequence[W]], Sequence[R | Failed]], message: bytes) -> bytes:
    """The packed results, one an entry, or one error for all; what the model does to its thread ends here."""
    try:
        results = stage(unpack(message))
        try:
            return pack(results)
        except Exception:  # noqa: BLE001  of a value; which one, is looked for
            return pack(sendable(results, _unsendable))
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        return pack(broken_off(error))


def _prepare(engine: Engine, items: Sequence[Item]) -> list[Work | Failed]:
    return [one if isinstance(one, Failed) else _sealed(one) for one in isolate(engine.prepare, items)]


def _run(engine: Engine, work: Sequence[Work]) -> list[Result]:
    return isolate(engine.run, [Work(one.key, one.cost, _unsealed(one)) for one in work])


def _sealed(work: Work) -> Work | Failed:
    """`work` with its payload as bytes: only workers, who have the model's modules, ever read it."""
    try:
        return Work(work.key, work.cost, pickle.dumps(work.payload, PROTOCOL))
    except Exception as error:  # noqa: BLE001  a payload's own pickling may raise anything
        return Failed(_unsendable(f"{type(error).__name__}: {str(error)[:300]}"))


def _unsealed(work: Work) -> object:
    return pickle.loads(work.payload) if isinstance(work.payload, bytes) else work.payload  # noqa: S301  a worker's


def _unsendable(why: str) -> ModelFailed:
    return ModelFailed(
        f"what the model made of this item cannot leave its process: {why}",
        remedy="serve it without workers, or let the model return plain values",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
