"""The functions that replace `forward` of a module: one that records calls, and one that computes with a graph."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from likewise.core.extras import need
from likewise.engine.accelerate.form import Call, Form, NotCovered, arguments_of, observed
from likewise.engine.openvino_graph import Arrays, Compute

logger = logging.getLogger(__name__)


@dataclass
class Calls:
    """Counts calls of compiled modules: those of the graph, and those of the original, by reason. Thread-safe.

    seen: if it is a list, the inputs and outputs of the graph are added to it.
    """

    compiled: int = 0
    seen: list[tuple[Arrays, Arrays]] | None = None
    original: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, module: str, why: str | None) -> None:
        """Count a call of `module`; why: the reason why the graph does not cover it, which is logged once, or None."""
        with self._lock:
            if why is None:
                self.compiled += 1
                return
            self.original[why] += 1
            first = self.original[why] == 1
        if first:
            logger.warning("%s is computed in torch, because %s", module, why)

    @property
    def counters(self) -> Mapping[str, int]:
        """For the metrics of a server."""
        return {"compiled_calls": self.compiled, "original_calls": self.original.total()}


def compute_with(module: Any, form: Form, compute: Compute, calls: Calls) -> None:
    """Let `module` compute what `form` covers with the graph `compute`, and everything else as before.

    Only this instance changes, and only its `forward`: its class, parameters and hooks stay.
    """
    original = module.forward
    named, changed = arguments_of(original), _changes(module)

    @wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        try:
            why_not = _state(module) or changed()
            if why_not is not None:
                raise NotCovered(why_not)
            inputs = form.arrays(named(args, kwargs))
        except NotCovered as error:
            calls.count(type(module).__name__, str(error))
            return original(*args, **kwargs)
        calls.count(type(module).__name__, None)
        outputs = compute(inputs)
        if calls.seen is not None:
            calls.seen.append(([each.copy() for each in inputs], [each.copy() for each in outputs]))
        return form.returned(outputs)

    module.forward = forward


class Recorder:
    """Records the calls of a module until `stop`; refused: why others could not be recorded, with their number."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.original = module.forward
        self.calls: list[Call] = []
        self.refused: Counter[str] = Counter()
        named = arguments_of(self.original)

        @wraps(self.original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            returned = self.original(*args, **kwargs)
            try:
                if (why := _state(module)) is not None:
                    raise NotCovered(why)
                self.calls.append(observed(named(args, kwargs), returned))
            except NotCovered as error:
                self.refused[str(error)] += 1
            return returned

        module.forward = forward

    def stop(self) -> None:
        """Restore the module."""
        del self.module.forward


def _state(module: Any) -> str | None:
    """Why no graph may compute the module now; None if one may."""
    if module.training:
        return "it is in training mode"
    if need("torch", extra="torch").is_grad_enabled():
        return "gradients are enabled (torch.no_grad() disables them)"
    return None


def _changes(module: Any) -> Callable[[], str | None]:
    """A function that states why the module's weights are not those that it has now; None if they may be."""
    parameters = [each for each in module.parameters() if not each.is_inference()]
    before = sum(each._version for each in parameters)
    first = parameters[0] if parameters else None
    dtype = None if first is None else first.dtype

    def changed() -> str | None:
        if first is not None and (first.dtype != dtype or first.device.type != "cpu"):
            return f"it was moved to {first.dtype} on {first.device.type}"
        return "its weights were changed" if sum(each._version for each in parameters) != before else None

    return changed
