"""Results: one per item, a value or an error, never an exception for the whole batch."""

from __future__ import annotations

from dataclasses import dataclass

from likewise.core.errors import LikewiseError


@dataclass(frozen=True, slots=True)
class Ok:
    """The prediction for one item.

    For a `Row`: that row's prediction, a record (`{"text": "…"}`) if the model returns a data frame, otherwise a plain
    value.  For a `Request`: the whole prediction, as MLflow would return it under `predictions`.
    Only JSON types (and NaN, which responses encode as null), bytes, date and datetime; never numpy or pandas.
    """

    value: object


@dataclass(frozen=True, slots=True)
class Failed:
    """The error because of which this one item has no prediction."""

    error: LikewiseError


Result = Ok | Failed
