"""Failure isolation: bisects a failing batch, so that only the failing items fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from likewise.core.errors import LikewiseError, ModelFailed, ModelRaised
from likewise.core.results import Failed
from likewise.core.uris import redacted

W = TypeVar("W")
R = TypeVar("R")


def isolate(run: Callable[[Sequence[W]], list[R | Failed]], work: Sequence[W]) -> list[R | Failed]:
    """`run(work)`; if that raises, each half of it separately, down to the single items that raise.

    Returns one result per item, in order. An item that raises by itself becomes `Failed`: with the error itself if it
    is a `LikewiseError`, otherwise with `ModelRaised`. Calls `run` at most 2n times for n items.
    """
    if not work:
        return []
    try:
        results = run(work)
    except Exception as error:  # noqa: BLE001  any exception of the model is the item's result
        if len(work) == 1:
            return [Failed(row_error(error))]
        half = len(work) // 2
        return isolate(run, work[:half]) + isolate(run, work[half:])
    if len(results) != len(work):
        raise AssertionError(f"run returned {len(results)} results for {len(work)} items")
    return results


def model_aborted(error: BaseException) -> ModelFailed:
    """The error for every item in a batch that the model aborted, for example with `sys.exit()`."""
    return ModelFailed(
        f"the model aborted with {type(error).__name__}: {redacted(str(error))[:500]}",
        remedy="see the server's log and fix the model",
    )


def row_error(error: Exception) -> LikewiseError:
    """The model's exception as the error of the row that raised it."""
    if isinstance(error, LikewiseError):
        return error
    text = redacted(str(error)).strip() or "no message"
    return ModelRaised(
        f"the model raised {type(error).__name__}: {text[:500]}",
        remedy="correct the row, or fix the model if it should accept such a row",
    )
