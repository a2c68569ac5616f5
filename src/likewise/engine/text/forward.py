"""The one function that a runtime brings: torch has one, every faster engine brings another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Forward = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""(ids [n, length], mask [n, length] of 0 and 1) -> logits [n, labels]. Thread safe; no row depends on another."""
