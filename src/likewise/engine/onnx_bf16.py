"""The engine for ONNX models in bf16, with OpenVINO, within a tolerance that the user states."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from typing import Any

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.cores import usable_threads
from likewise.core.errors import EngineUnavailable
from likewise.core.extras import need
from likewise.engine.engine_options import TOLERANT
from likewise.engine.example import Example, read_example
from likewise.engine.kinds import CompiledEngines, CompileRequest, ModelFacts
from likewise.engine.onnx_engine import Declared, OnnxKind
from likewise.engine.onnx_sessions import Feeds, Session, open_onnxruntime
from likewise.engine.openvino_calls import FIRST, Requests, compiled, has_bf16, last_line, runtime

PAUSE_S = 10.0  # between two compilations after failed inferences; one takes about a second

logger = logging.getLogger(__name__)


class OnnxBf16Kind(OnnxKind):
    """Runs models of MLflow's ONNX flavor in bf16, which changes their numbers."""

    name = "onnx-bf16"
    requirements = ("likewise[mlflow,onnx,openvino]",)
    library = "openvino"
    purpose = "run ONNX models in bf16, within a stated tolerance"

    def offers(self, model: ModelFacts) -> Sequence[EngineEntry]:  # noqa: ARG002  only what `compile` has compared
        return ()

    def compile(self, bundle: Bundle, request: CompileRequest) -> CompiledEngines:
        """Compare bf16 with fp32 on the model's example; nothing is stored, because OpenVINO compiles when it opens.

        Raises EngineUnavailable: no example, no bf16 in this CPU, or a difference above the tolerance.
        """
        tolerance = request.options.tolerance
        if tolerance is None:
            return CompiledEngines()
        example = read_example(bundle.model_path)
        if example is None:
            raise EngineUnavailable(
                "bf16 cannot be compared with fp32, because the model was logged without an example",
                remedy="log the model with an input_example of typical rows, or bundle it without --tolerance",
            )
        fast, exact = (_outputs(kind, bundle, example) for kind in (self, OnnxKind()))
        difference = max((_difference(fast[name], exact[name]) for name in exact), default=0.0)
        found = (
            f"bf16 changes the numbers for {len(example.table)} example rows by up to {difference:.2g} of the largest"
        )
        if not difference <= tolerance:
            raise EngineUnavailable(
                f"{found}, which is more than the tolerance of {tolerance:g}",
                remedy="bundle it with a larger --tolerance, or without",
            )
        request.report(f"{found}; the tolerance is {tolerance:g}")
        agreement = {"tolerance": tolerance, "difference": difference, "rows": len(example.table)}
        return CompiledEngines((EngineEntry(self.name, TOLERANT),), measured={"bf16": agreement})

    def _session(self, model: Declared) -> Session:
        return _Bf16(model).session


class _Bf16:
    """A model in OpenVINO; whatever fails there is answered by ONNX Runtime, so that errors are the same."""

    def __init__(self, model: Declared) -> None:
        if not has_bf16():
            raise EngineUnavailable("this CPU has no bf16", remedy="use another engine of the bundle")
        exact = open_onnxruntime(model.path, model.providers, model.options)
        self._exact = exact
        self._path = model.path
        self._lock = threading.Lock()
        self._compiled_at = time.monotonic()
        self._requests: Requests | None = self._compile()
        self.session = Session(exact.inputs, exact.outputs, self._run)

    def _compile(self) -> Requests:
        threads = usable_threads()
        try:
            with FIRST:
                model = compiled(runtime().read_model(self._path), "bf16", threads)
        except RuntimeError as error:
            raise EngineUnavailable(
                f"OpenVINO cannot open {self._path.name}: {last_line(error)[:500]}",
                remedy="use another engine of the bundle",
            ) from error
        self._names = [port.get_any_name() for port in model.inputs]
        return Requests(model, threads)

    def _run(self, feeds: Feeds) -> list[Any]:
        requests = self._requests
        if requests is None:
            self._recompile()
            return self._exact.run(feeds)
        try:
            return requests.infer([feeds[name] for name in self._names])
        except RuntimeError:
            self._requests = None  # the compiled model keeps shapes of the inference that failed
            return self._exact.run(feeds)

    def _recompile(self) -> None:
        """Compile again in a thread, unless that has just been done: failing requests must not cost more."""
        with self._lock:
            if time.monotonic() - self._compiled_at < PAUSE_S:
                return
            self._compiled_at = time.monotonic()
        threading.Thread(target=self._replace, name="likewise-compile", daemon=True).start()

    def _replace(self) -> None:
        try:
            self._requests = self._compile()
        except EngineUnavailable as error:
            logger.warning("bf16 is not available any more: %s", error.cause)


def _outputs(kind: OnnxKind, bundle: Bundle, example: Example) -> dict[str, Any]:
    """The outputs for the example, as arrays by name."""
    engine = kind.open(bundle, EngineEntry(kind.name, TOLERANT))
    try:
        answer = engine.predict(example.value, example.params)
    finally:
        engine.close()
    return {name: need("numpy", extra="onnx").asarray(answer[name]) for name in answer}


def _difference(one: Any, other: Any) -> float:
    """The largest difference of two arrays of numbers, relative to the largest number; infinite for unequal others."""
    np = need("numpy", extra="onnx")
    if one.shape != other.shape or one.dtype.kind != "f":
        return 0.0 if np.array_equal(one, other) else math.inf
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return math.inf
    finite = np.isfinite(other)
    largest = float(np.abs(other[finite]).max(initial=0.0)) or 1.0
    return float(np.abs(one[finite] - other[finite]).max(initial=0.0)) / largest
