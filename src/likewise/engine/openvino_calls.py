"""Calls of OpenVINO that avoid its pitfalls: one runtime per process, and an inference that fails always raises."""

from __future__ import annotations

import importlib.util
import queue
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

from likewise.core.errors import EngineUnavailable
from likewise.core.extras import install_command, need
from likewise.core.lazy_imports import deferred

FIRST = threading.RLock()
"""Serializes the first inferences: two threads that pass arrays to the runtime for the first time concurrently
deadlock, one inside a `call_once` of OpenVINO's Python binding and one waiting for the GIL."""


def need_to_compile() -> None:
    """Raise EngineUnavailable unless the libraries are installed that convert a model of torch."""
    missing = [name for name in ("openvino", "torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineUnavailable(
            f"compiling needs {', '.join(missing)}, which is not installed",
            remedy=install_command("openvino,torch"),
        )


@cache
def runtime() -> Any:
    """The OpenVINO runtime, one for the life of the process; raises MissingExtra.

    The CPU plugin of OpenVINO 2026.4 sets a signal stack in the thread that loads it, and frees that stack when the
    plugin is freed. If that happens out of order or in another thread, the next signal causes a segmentation fault.
    """
    with deferred("openvino.tools.ovc"):  # converts models, and takes as long to import as the rest
        return need("openvino", extra="openvino").Core()


def has_bf16() -> bool:
    """Whether the CPU has instructions for bf16; without them, the runtime emulates it slowly, or fails."""
    return "BF16" in runtime().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compiled(model: Any, precision: str, threads: int, lanes: int | None = None) -> Any:
    """The compiled `model` (a graph, or the path of one); raises RuntimeError.

    precision: OpenVINO's name, `f32` or `bf16`.  lanes: the number of inferences at a time, which share the `threads`;
    None for as many.
    """
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": lanes or threads,
        "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same cores
    }
    return runtime().compile_model(model, "CPU", settings)


class Requests:
    """Infer requests of a compiled model: each is used by one thread at a time."""

    def __init__(self, model: Any, count: int) -> None:
        self._warm = False
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(count):
            self._idle.put(model.create_infer_request())

    def infer(self, inputs: Sequence[Any]) -> list[Any]:
        """See `infer`; waits for an idle request."""
        if not self._warm:
            with FIRST:
                outputs = self._infer(inputs)
                self._warm = True
                return outputs
        return self._infer(inputs)

    def _infer(self, inputs: Sequence[Any]) -> list[Any]:
        request = self._idle.get()
        try:
            return infer(request, inputs)
        finally:
            self._idle.put(request)


def infer(request: Any, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of `request`, an infer request that no other thread uses, as new arrays in the model's order.

    Raises RuntimeError if the inference fails. `request.infer` does not with one thread (OpenVINO 2026.4): it returns
    the outputs of the previous inference.  Later inferences of the compiled model may then fail too, because it keeps
    shapes of the failed one: callers check the shapes of what they pass.
    """
    request.start_async(list(inputs), share_inputs=True)
    request.wait()
    return [tensor.data.copy() for tensor in request.output_tensors]


def last_line(error: RuntimeError) -> str:
    """The last line of the runtime's message, which states what failed; the others name its source files."""
    return str(error).strip().rpartition("\n")[2]
