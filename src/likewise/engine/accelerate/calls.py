"""Counts the calls of compiled modules."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from likewise.engine.accelerate.form import NotCovered
from likewise.engine.openvino_graph import Arrays

logger = logging.getLogger(__name__)


@dataclass
class Calls:
    """Counts calls of compiled modules: those of the graph, and those of the original, by reason. Thread-safe.

    seen: if it is a dict, the inputs and outputs of each graph are added to it, by the module's fingerprint.
    """

    compiled: int = 0
    seen: dict[str, list[tuple[Arrays, Arrays]]] | None = None
    original: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def computed(self, name: str, inputs: Arrays, outputs: Arrays) -> None:
        """Count a computation of the graph of the module with the fingerprint `name`."""
        with self._lock:
            self.compiled += 1
        if self.seen is not None:
            copies = [each.copy() for each in inputs], [each.copy() for each in outputs]
            self.seen.setdefault(name, []).append(copies)

    def not_covered(self, module: str, why: NotCovered) -> None:
        """Count a call of `module` that its graph does not cover; each reason is logged once."""
        with self._lock:
            self.original[why.reason] += 1
            first = self.original[why.reason] == 1
        if first:
            logger.warning("%s is computed in torch, because %s", module, why)

    @property
    def counters(self) -> Mapping[str, int]:
        """For the metrics of a server."""
        return {"compiled_calls": self.compiled, "original_calls": self.original.total()}
