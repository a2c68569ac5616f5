"""The functions that replace `forward` of a module: one that records calls, and one that computes with a graph."""

from __future__ import annotations

import inspect
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

from likewise.core.extras import need
from likewise.engine.accelerate.calls import Calls
from likewise.engine.accelerate.form import Call, Form, NotCovered, arguments_of, observed
from likewise.engine.accelerate.loading import fingerprint
from likewise.engine.openvino_graph import Compute

KEPT = 512 * 1024 * 1024  # bytes of recorded arrays per module; later calls are not recorded
FLAGS = (
    "output_hidden_states",
    "output_attentions",
    "return_dict",
)  # of a configuration, which decide what is returned

Found = tuple[str, Form, Compute]
"""The fingerprint of a compiled module, the calls that its graph covers, and their computation."""


def compute_with(module: Any, find: Callable[[Any], Found | None], calls: Calls) -> None:
    """Let `module` compute with a graph what that covers, and everything else as before.

    find: the compiled module with the weights that `module` has at its first call, or None if there is none.
    Only this instance changes, and only its `forward`: its class, parameters and hooks stay.
    """
    original = module.forward
    lock = threading.Lock()
    bound: list[Callable[..., Any]] = []

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is not module:  # a copy, whose weights may be other ones
            return type(self).forward(self, *args, **kwargs)
        with lock:
            if not bound:
                found = find(module)
                bound.append(original if found is None else _computing(module, original, *found, calls))
        return bound[0](*args, **kwargs)

    _replace_forward(module, forward)


def _computing(
    module: Any, original: Callable[..., Any], name: str, form: Form, compute: Compute, calls: Calls
) -> Callable[..., Any]:
    named, changed, kind = arguments_of(original), _changes(module), type(module).__name__

    def forward(*args: Any, **kwargs: Any) -> Any:
        try:
            _check_state(module)
            changed()
            inputs = form.arrays(named(args, kwargs))
        except NotCovered as error:
            calls.not_covered(kind, error)
            return original(*args, **kwargs)
        outputs = compute(inputs)
        calls.computed(name, inputs, outputs)
        return form.returned(outputs)

    return forward


class Recorder:
    """Records the calls of a module until `stop`; refused: why others could not be recorded, with their number.

    name: the fingerprint of the module at its first call, None if it has not been called.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.original = module.forward
        self.name: str | None = None
        self.calls: list[Call] = []
        self.refused: Counter[str] = Counter()
        self._named = arguments_of(self.original)
        self._changed: Callable[[], None] = lambda: None
        self._bytes = 0

        def forward(instance: Any, *args: Any, **kwargs: Any) -> Any:
            if instance is not module:
                return type(instance).forward(instance, *args, **kwargs)
            returned = self.original(*args, **kwargs)
            self._record(args, kwargs, returned)
            return returned

        _replace_forward(module, forward)

    def stop(self) -> None:
        """Restore the module."""
        del self.module.forward

    def _record(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], returned: Any) -> None:
        if self.name is None:
            self.name, self._changed = fingerprint(self.module), _changes(self.module)
        if self._bytes > KEPT:
            return
        try:
            _check_state(self.module)
            self._changed()
            call = observed(self._named(args, kwargs), returned)
        except NotCovered as error:
            self.refused[str(error)] += 1
            return
        self.calls.append(call)
        self._bytes += sum(each.nbytes for each in (*call.inputs.values(), *call.outputs.values()))


def _replace_forward(module: Any, forward: Callable[..., Any]) -> None:
    """Set a method `forward` on the instance, which is bound again when the instance is copied or unpickled."""
    signature = inspect.signature(module.forward)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    given = [each.replace(kind=inspect.Parameter.POSITIONAL_ONLY) if each.kind is own.kind else each
             for each in signature.parameters.values()]  # fmt: skip
    forward.__signature__ = signature.replace(parameters=[own, *given])  # type: ignore[attr-defined]
    forward.__name__, forward.__doc__ = "forward", module.forward.__doc__
    module.forward = MethodType(forward, module)


def _check_state(module: Any) -> None:
    """Raise NotCovered if no graph may compute the module now."""
    if module.training:
        raise NotCovered("it is in training mode")
    if need("torch", extra="torch").is_grad_enabled():
        raise NotCovered("gradients are enabled (torch.no_grad() disables them)")


def _changes(module: Any) -> Callable[[], None]:
    """A function that raises NotCovered if the module is known not to be the one that it is now."""
    tensors = [each for each in (*module.parameters(), *module.buffers()) if not each.is_inference()]
    config = getattr(module, "config", None)
    before = sum(each._version for each in tensors)
    flags = [getattr(config, name, None) for name in FLAGS]
    first = tensors[0] if tensors else None
    dtype = None if first is None else first.dtype

    def check() -> None:
        if first is not None and (first.dtype != dtype or first.device.type != "cpu"):
            raise NotCovered("it was moved to another type or device", f"{first.dtype}, {first.device.type}")
        if sum(each._version for each in tensors) != before:
            raise NotCovered("its weights were changed")
        if [getattr(config, name, None) for name in FLAGS] != flags:
            raise NotCovered("its configuration was changed")

    return check
