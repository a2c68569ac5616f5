"""Runs an ONNX model file with ONNX Runtime, from several threads at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likewise.core.cores import usable_threads
from likewise.core.errors import EngineUnavailable, RowRefused
from likewise.core.extras import need

Feeds = dict[str, Any]
"""Arrays by input name."""

OPTIONS = frozenset({"inter_op_num_threads", "intra_op_num_threads", "execution_mode", "graph_optimization_level"})
"""The session options of MLflow's flavor that are passed on; others may name files and libraries."""

CPU = "CPUExecutionProvider"
_TYPES = {
    "float": "float32", "double": "float64", "float16": "float16", "bool": "bool", "string": "str",
    **{name: name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Input:
    """One input. dtype: NumPy's name, `str` for texts, None for what is not a tensor; shape: None where it is free."""

    dtype: str | None
    shape: tuple[int | None, ...] | None

    def check(self, name: str, value: Any) -> None:
        """Raise RowRefused for an array of another type or shape."""
        if self.dtype is None:
            return
        given = "str" if value.dtype.kind in "OUS" else value.dtype.name
        fits = self.shape is None or (
            len(self.shape) == value.ndim
            and all(length in (None, actual) for length, actual in zip(self.shape, value.shape, strict=True))
        )
        if given != self.dtype or not fits:
            shape = "any shape" if self.shape is None else f"the shape {[-1 if n is None else n for n in self.shape]}"
            raise RowRefused(
                f"the model's input {name!r} takes {self.dtype} of {shape}, got {given} of the shape "
                f"{list(value.shape)}",
                remedy="send arrays of this type and shape, as shown by: likewise inspect MODEL",
            )


@dataclass(frozen=True, slots=True)
class Session:
    """An opened model. run: one value per output for the feeds, thread-safe."""

    inputs: Mapping[str, Input]
    outputs: Sequence[str]
    run: Callable[[Feeds], list[Any]]

    def __call__(self, feeds: Feeds) -> list[Any]:
        """One value per output; RowRefused for feeds that do not fit the inputs, and what the runtime raises."""
        if feeds.keys() != self.inputs.keys():
            raise RowRefused(
                f"the model's inputs are {', '.join(self.inputs)}; got {', '.join(map(str, feeds)) or 'none'}",
                remedy="send every input by its name, as shown by: likewise inspect MODEL",
            )
        for name, each in self.inputs.items():
            each.check(name, feeds[name])
        return self.run(feeds)


def open_onnxruntime(path: Path, providers: Sequence[str], options: Mapping[str, Any]) -> Session:
    """Open the model with ONNX Runtime; raises MissingExtra, EngineUnavailable if it cannot be opened.

    providers, options: of MLflow's flavor. Threads do not spin while they wait, which would take other requests' time.
    """
    ort = need("onnxruntime", extra="onnx")
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = int(options.get("intra_op_num_threads") or usable_threads())
    settings.inter_op_num_threads = int(options.get("inter_op_num_threads") or usable_threads())
    settings.log_severity_level = 3  # errors
    if str(options.get("execution_mode")).upper() == "PARALLEL":
        settings.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    if level := options.get("graph_optimization_level"):
        settings.graph_optimization_level = ort.GraphOptimizationLevel(level)
    for pool in ("intra_op", "inter_op"):
        settings.add_session_config_entry(f"session.{pool}.allow_spinning", "0")
    available = ort.get_available_providers()
    chosen = [name for name in providers if name in available] or [CPU]
    try:
        session = ort.InferenceSession(str(path), settings, providers=chosen)
    except Exception as error:  # the binding has an exception for each status
        raise _unusable("ONNX Runtime", path, str(error)) from error
    names = [each.name for each in session.get_outputs()]
    inputs = {each.name: Input(_dtype(each.type), _lengths(each.shape)) for each in session.get_inputs()}
    return Session(inputs, names, lambda feeds: list(session.run(names, feeds)))


def _dtype(kind: str) -> str | None:
    """NumPy's name for ONNX Runtime's `tensor(…)`; None for anything else."""
    return _TYPES.get(kind.removeprefix("tensor(").removesuffix(")")) if kind.startswith("tensor(") else None


def _lengths(shape: Sequence[object] | None) -> tuple[int | None, ...] | None:
    return tuple(length if isinstance(length, int) else None for length in shape) if shape else None


def _unusable(name: str, path: Path, why: str) -> EngineUnavailable:
    return EngineUnavailable(f"{name} cannot open {path.name}: {why[:500]}", remedy="use another engine of the bundle")
