"""The compiled modules of a bundle: recognized when the model loads them, and then computed with their graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from likewise.core.errors import EngineUnavailable
from likewise.engine.accelerate.calls import Calls
from likewise.engine.accelerate.form import MASK, Form
from likewise.engine.accelerate.forward import compute_with
from likewise.engine.accelerate.loading import fingerprint, watching
from likewise.engine.engine_options import TOLERANT
from likewise.engine.openvino_graph import Compute, Graph, open_graph, read_graph
from likewise.engine.text.cascade import cascaded
from likewise.engine.text.compiled import EXACT, FAST, recompute_threads
from likewise.engine.text.guard import guarded, lazy_forward
from likewise.engine.text.torch_forward import Forward


class CompiledModules:
    """The modules in the folder of a compiled engine, one folder each, named by `fingerprint`.

    It is also the context in which the model loads and predicts, so that modules loaded later are recognized too; it
    may be entered by several threads.  A module is recognized at its first call, by the weights that it has then.
    calls: counts the calls of all modules.
    """

    def __init__(
        self,
        folder: Path,
        precision: str,
        *,
        lanes: int | None = None,
        code: AbstractContextManager[object] | None = None,
    ) -> None:
        """precision: of the engine.  lanes: see `open_graph`.  code: the context of the model's own modules.

        Raises EngineUnavailable if it has no modules, or this CPU cannot run them in this precision, MissingExtra.
        """
        self.calls = Calls()
        self._code = code or nullcontext()
        forms = {path.parent: Form.read(path.parent) for path in sorted(folder.glob("*/module.json"))}
        if not forms:
            raise EngineUnavailable(f"the bundle has no modules in {folder.name}", remedy="bundle the model again")
        self._found = {
            path.name: (path.name, form, open_compute(read_graph(path), form, precision, lanes=lanes))
            for path, form in forms.items()
        }
        self._kinds = {form.module for form in forms.values()}
        self._entered = threading.local()

    def __enter__(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(self._code)
            stack.enter_context(watching(self._replace))
            self._entered.__dict__.setdefault("stacks", []).append(stack.pop_all())

    def __exit__(self, *raised: Any) -> None:
        self._entered.stacks.pop().__exit__(*raised)

    def _replace(self, module: Any) -> None:
        """Let `module` compute with its graph, if it turns out to be one of those that were compiled."""
        if type(module).__name__ in self._kinds:
            compute_with(module, lambda each: self._found.get(fingerprint(each)), self.calls)


def open_compute(graph: Graph, form: Form, precision: str, *, lanes: int | None = None) -> Compute:
    """The function of a module in the precision of its engine; raises what `open_graph` does."""
    opened: Callable[..., Compute] = partial(open_graph, graph, texts=form.texts, lanes=lanes)
    if precision == EXACT or not form.fast:
        return opened("fp32")
    if form.calibration is None:
        return opened("bf16")
    threads = recompute_threads(form.calibration.share)
    exact = lazy_forward(lambda: logits_of(open_graph(graph, "fp32", texts=form.texts, threads=threads)))
    fast = logits_of(opened("bf16"))
    forward = guarded(fast, exact, form.calibration.guard)
    if form.cascade is not None and precision not in (FAST, TOLERANT):
        forward = cascaded(fast, forward, form.cascade, form.inputs.index(MASK))
    return lambda inputs: [forward(*inputs)]


def logits_of(compute: Compute) -> Forward:
    """The first output of `compute`."""
    return lambda *inputs: compute(inputs)[0]
