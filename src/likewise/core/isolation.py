"""Poison isolation: an item that fails is found by bisection, its batch-mates get their answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from likewise.core.errors import LikewiseError, ModelFailed, ModelRaised
from likewise.core.results import Failed

W = TypeVar("W")
R = TypeVar("R")


def isolate(run: Callable[[Sequence[W]], list[R | Failed]], work: Sequence[W]) -> list[R | Failed]:
    """`run(work)`; where that raises, halves of it, down to the items that raise alone.

    Returns one result an item, in order. An item that raises alone is `Failed`: with the error itself where it is a
    `LikewiseError`, else with `ModelRaised`. At most 2n calls of `run` for n items.
    """
    if not work:
        return []
    try:
        results = run(work)
    except Exception as error:  # noqa: BLE001  whatever the model raises belongs to its item
        if len(work) == 1:
            return [Failed(refusal(error))]
        half = len(work) // 2
        return isolate(run, work[:half]) + isolate(run, work[half:])
    if len(results) != len(work):
        raise AssertionError(f"run returned {len(results)} results for {len(work)} items")
    return results


def broken_off(error: BaseException) -> ModelFailed:
    """What a model did to its thread (`sys.exit()` included) as the error of every item that it held."""
    return ModelFailed(
        f"the model broke off with {type(error).__name__}: {str(error)[:500]}",
        remedy="read the server's log; mend the model",
    )


def refusal(error: Exception) -> LikewiseError:
    """The model's exception as an error for the one row that raised it."""
    if isinstance(error, LikewiseError):
        return error
    text = str(error).strip() or "no message"
    return ModelRaised(
        f"the model raised {type(error).__name__}: {text[:500]}",
        remedy="correct the row, or the model where it should accept such a row",
    )
