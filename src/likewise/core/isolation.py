"""Failure isolation: bisects a failing batch, so that only the failing items fail."""

from __future__ import annotations

import dis
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

from likewise.core.engine import Engine, Work
from likewise.core.errors import LikewiseError, ModelFailed, ModelRaised
from likewise.core.items import Item
from likewise.core.results import Failed, Result
from likewise.core.uris import redacted

W = TypeVar("W")
R = TypeVar("R")

MODEL_CALLERS = ("likewise.core.isolation", "likewise.engine")  # modules that call a model's code
_RAISE = dis.opmap["RAISE_VARARGS"]  # the bytecode of the statement `raise`


class StopSignal(KeyboardInterrupt):
    """What a signal handler raises to stop a command; never an item's failure."""


def isolate(run: Callable[[Sequence[W]], list[R | Failed]], work: Sequence[W]) -> list[R | Failed]:
    """`run(work)`; if that raises, each half of it separately, down to the single items that raise.

    Returns one result per item, in order. An item that raises by itself becomes `Failed`, whatever it raises: with the
    error itself if it is a `LikewiseError`, otherwise with `ModelRaised`. Only a signal to this process is passed on.
    Calls `run` at most 2n times for n items.
    """
    if not work:
        return []
    try:
        results = run(work)
    except BaseException as error:  # anything that the model raises is the item's result
        if by_signal(error):
            raise
        if len(work) == 1:
            return [Failed(row_error(error))]
        half = len(work) // 2
    else:
        return results if len(results) == len(work) else [Failed(_miscount(len(results), len(work)))] * len(work)
    return isolate(run, work[:half]) + isolate(run, work[half:])


def answers(engine: Engine, items: Sequence[Item]) -> list[tuple[int, Result]]:
    """Prepare and run `items`, isolating those that fail: each one's cost, 0 if it was not prepared, and result."""
    prepared = isolate(engine.prepare, items)
    results = iter(isolate(engine.run, [each for each in prepared if isinstance(each, Work)]))
    return [(each.cost, next(results)) if isinstance(each, Work) else (0, each) for each in prepared]


def row_error(error: BaseException) -> LikewiseError:
    """The model's exception as the error of the row that raised it."""
    if isinstance(error, LikewiseError):
        return error
    return ModelRaised(
        f"the model raised {type(error).__name__}: {describe(error) or 'no message'}",
        remedy="correct the row, or fix the model if it should accept such a row",
    )


def describe(error: BaseException) -> str:
    """The message of an exception, shortened and without secrets; its own `__str__` may raise as well."""
    try:
        return redacted(str(error)).strip()[:500]
    except BaseException as raised:  # noqa: BLE001  the model's code
        return f"its message cannot be read, because its __str__ raises {type(raised).__name__}"


def traceback_of(error: LikewiseError) -> str:
    """The traceback of the model's exception while it loaded, from its own code on; empty for other errors."""
    cause = error.__cause__
    if not isinstance(cause, Exception) or isinstance(cause, LikewiseError):
        return ""
    frames = cause.__traceback__
    while frames is not None and _is_loader(frames.tb_frame.f_globals.get("__name__")) and frames.tb_next is not None:
        frames = frames.tb_next
    return redacted("".join(traceback.format_exception(type(cause), cause, frames, chain=False)))


def _is_loader(module: object) -> bool:
    return str(module).partition(".")[0] in ("likewise", "mlflow")


def by_signal(error: BaseException) -> bool:
    """Whether a signal to this process has raised `error`, rather than the model's own code.

    Python's handler of SIGINT raises KeyboardInterrupt in the main thread, at any instruction except `raise`.
    """
    if not isinstance(error, KeyboardInterrupt) or threading.current_thread() is not threading.main_thread():
        return False
    if isinstance(error, StopSignal):
        return True
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is None or last.tb_frame.f_code.co_code[last.tb_lasti] != _RAISE


def refuse_exit() -> None:
    """From now on, a model that calls `os._exit` in this process raises an exception; forked children still exit.

    Only for programs: it would end a job or a comparison with the exit code that the model chooses, even 0.
    """
    owner, leave = os.getpid(), os._exit

    def exit_(status: int) -> None:
        frame = sys._getframe(1) if os.getpid() == owner else None
        while frame is not None:
            if str(frame.f_globals.get("__name__")).startswith(MODEL_CALLERS):
                raise RuntimeError(f"the model called os._exit({status})")
            frame = frame.f_back
        leave(status)

    os._exit = exit_  # type: ignore[assignment]


def _miscount(results: int, items: int) -> ModelFailed:
    return ModelFailed(
        f"the engine returned {results} results for {items} items", remedy="fix the engine: one result per item"
    )
