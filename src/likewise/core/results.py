"""What comes back: one result an item, a value or an error, never an exception for the whole batch."""

from __future__ import annotations

from dataclasses import dataclass

from likewise.core.errors import LikewiseError


@dataclass(frozen=True, slots=True)
class Ok:
    """The prediction for one item.

    For a `Row`: that row's prediction, a record (`{"text": "…"}`) where the model returns a frame, else a plain value.
    For a `Request`: the whole prediction, as MLflow would print it under `predictions`.
    Only what JSON has (NaN included: the wire turns it into null), bytes, date and datetime; never numpy or pandas.
    """

    value: object


@dataclass(frozen=True, slots=True)
class Failed:
    """Why this item, and this one alone, has no prediction."""

    error: LikewiseError


Result = Ok | Failed
