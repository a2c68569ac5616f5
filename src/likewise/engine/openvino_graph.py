"""Converts torch modules to OpenVINO graphs, and runs these on the CPU without torch, in bf16 or fp32.

A module takes and returns tensors.  If one of its inputs is the mask of a batch of texts (1 for tokens, 0 for padding),
rows are computed in parts of similar lengths, without most of their padding.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from likewise.core.cores import usable_threads
from likewise.core.errors import EngineUnavailable
from likewise.core.extras import need
from likewise.core.memory import release_pages, trim
from likewise.core.windows import windows
from likewise.engine.first_token import keep_first_token, narrow_masks
from likewise.engine.openvino_calls import FIRST, Requests, compiled, has_bf16, infer, last_line, runtime

HINTS = {"bf16": "bf16", "fp32": "f32"}
"""OpenVINO's name for each precision."""

BUCKET = 16
"""Lengths are padded to a multiple of this: fewer shapes to set up, and results that do not depend on the batch."""

PART = 512
"""Padded tokens per inference, so that the data fits a core's cache. Larger batches are split."""

DRIFT = 1e-3
"""Tolerance between converted fp32 outputs and torch's, relative to the largest: the kernels differ."""

LONGEST = ["likewise", "max_tokens"]
"""Where the maximum number of tokens is stored in the runtime info of the model file."""

Arrays = Sequence[NDArray[Any]]
"""One array per input or output of a module, in order."""

Compute = Callable[[Arrays], list[NDArray[Any]]]
"""The function of a module. Thread-safe; its rows are independent."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The inputs of a module for texts: arrays [batch, length], and outputs whose rows are of one text each.

    mask: the position of the input that is 1 for tokens and 0 for padding.  longest: tokens of the longest text.
    per_token: the positions of outputs [batch, length, …], one vector per token.
    """

    mask: int
    longest: int
    per_token: frozenset[int] = frozenset()


def write_graph(
    module: Any,
    probes: Sequence[Arrays],
    folder: Path,
    *,
    texts: Texts | None = None,
    names: Sequence[str] = (),
    branches: bool = True,
) -> None:
    """Convert `module` and write `model.xml` and `model.bin` (fp32 weights, any batch and length) into `folder`.

    module: takes one tensor per input and returns a tensor, or a tuple of them.  probes: its inputs for tracing, and
    for comparing the graph with torch.  names: of the inputs; default: those of `forward`.  branches: whether its code
    may branch on values, of which a graph keeps one.
    The same weights give the same bytes.  Raises MissingExtra without torch and openvino, EngineUnavailable if OpenVINO
    does not support the module, or if its fp32 outputs differ from torch's.
    """
    ov = need("openvino", extra="openvino")
    expected = [_native(module, probe) for probe in probes]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "model.xml")
        traced = _traced(module, probes[0], branches)
        for port, name in zip(traced.inputs, names, strict=False):
            port.get_tensor().set_names({name})
        ov.save_model(traced, path, compress_to_fp16=False)  # saving normalizes the shapes
        for graph in _variants(path, texts):
            if _agrees(graph, probes, expected):
                folder.mkdir(parents=True, exist_ok=True)
                if texts is not None:
                    graph.set_rt_info(texts.longest, LONGEST)
                _name_nodes(graph)
                ov.save_model(graph, folder / "model.xml", compress_to_fp16=False)
                return
    raise EngineUnavailable(
        f"OpenVINO {ov.__version__} does not give torch's results for {_name(module)} in fp32",
        remedy="use an engine that runs it in torch",
    )


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph written by `write_graph`: its weights are memory-mapped once for all precisions opened from it.

    longest: tokens of the longest text, 0 for a graph of other inputs.
    """

    model: Any
    folder: Path
    longest: int = 0


def read_graph(folder: Path) -> Graph:
    """Read the graph in `folder`; raises MissingExtra without openvino, EngineUnavailable if it cannot be read."""
    core = runtime()
    try:
        model = core.read_model(folder / "model.xml")
        return Graph(model, folder, int(model.get_rt_info(LONGEST).astype(int)) if model.has_rt_info(LONGEST) else 0)
    except RuntimeError as error:
        raise EngineUnavailable(
            f"OpenVINO cannot read {folder}: {last_line(error)}", remedy="build the bundle again"
        ) from error


def open_graph(
    graph: Graph, precision: str, *, texts: Texts | None = None, threads: int | None = None, lanes: int | None = None
) -> Compute:
    """The function of `graph`; each text's outputs are bit-identical whatever the other texts are.

    precision: of the arithmetic, `bf16` or `fp32`; outputs are fp32.  threads: None for OMP_NUM_THREADS or one per
    core.  lanes: how many inferences share these threads; None for as many, each with one.
    Raises EngineUnavailable if this CPU has no instructions for the precision, or the runtime cannot compile the graph.
    """
    if precision not in (offered := [name for name in HINTS if name == "fp32" or has_bf16()]):
        raise EngineUnavailable(
            f"OpenVINO does not support {precision} on this CPU ({runtime().get_property('CPU', 'FULL_DEVICE_NAME')})",
            remedy=f"use the precision {' or '.join(offered)}",
        )
    threads = threads or usable_threads()
    lanes = lanes or threads
    with FIRST:
        requests = Requests(_compiled(graph, precision, threads, lanes), lanes)
        if texts is None:
            return requests.infer
        compute = _Parts(requests, texts, lanes)
        ports = len(graph.model.inputs)
        compute([(np.ones if at == texts.mask else np.zeros)((1, 1), dtype=np.int64) for at in range(ports)])
    return compute


class _Parts:
    """Computes texts in parts, one per lane at a time, so that threads do not wait for each other within a layer."""

    def __init__(self, requests: Requests, texts: Texts, lanes: int) -> None:
        self._texts = texts
        self._requests = requests
        self._pool = ThreadPoolExecutor(lanes, thread_name_prefix="likewise-openvino")

    def __call__(self, inputs: Arrays) -> list[NDArray[Any]]:
        mask = inputs[self._texts.mask]
        rows, width = mask.shape
        ends = [width] * rows if self._texts.per_token else list(width - mask[:, ::-1].argmax(axis=1))
        costs = [max(1, min(-(-int(end) // BUCKET) * BUCKET, self._texts.longest)) for end in ends]
        parts = windows(costs, PART)
        cut = [[_cut(values, part, costs[part[0]]) for values in inputs] for part in parts]
        outputs = list(self._pool.map(self._requests.infer, cut)) if len(parts) > 1 else [self._requests.infer(cut[0])]
        return [self._joined(parts, at, [each[at] for each in outputs], width) for at in range(len(outputs[0]))]

    def _joined(self, parts: Sequence[list[int]], at: int, values: Arrays, width: int) -> NDArray[Any]:
        """The output `at` of all parts, in the order of the texts."""
        if at in self._texts.per_token:
            values = [each[:, :width] for each in values]
        joined = np.empty((sum(map(len, parts)), *values[0].shape[1:]), dtype=values[0].dtype)
        for part, value in zip(parts, values, strict=True):
            joined[part] = value
        return joined


def _cut(values: NDArray[np.int64], rows: list[int], length: int) -> NDArray[np.int64]:
    """The given rows at `length` columns; added columns are 0, which the mask excludes."""
    cut = np.zeros((len(rows), length), dtype=np.int64)
    width = min(length, values.shape[1])
    cut[:, :width] = values[rows, :width]
    return cut


def _compiled(graph: Graph, precision: str, threads: int, lanes: int) -> Any:
    try:
        model = compiled(graph.model, HINTS[precision], threads, lanes)
    except RuntimeError as error:
        raise EngineUnavailable(
            f"OpenVINO cannot open {graph.folder} in {precision}: {last_line(error)}",
            remedy="use the precision fp32" if precision == "bf16" else "build the bundle again",
        ) from error
    release_pages(graph.folder / "model.bin")
    trim()  # memory that compiling needed
    return model


def _native(module: Any, inputs: Arrays) -> list[NDArray[Any]]:
    """The outputs of the torch module."""
    torch = need("torch", extra="torch")
    with torch.inference_mode():
        outputs = module(*map(torch.from_numpy, inputs))
    return [each.numpy() for each in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _traced(module: Any, probe: Arrays, branches: bool) -> Any:
    ov, torch = need("openvino", extra="openvino"), need("torch", extra="torch")
    level = logging.root.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if branches else "error", torch.jit.TracerWarning)
            return ov.convert_model(module, example_input=tuple(map(torch.from_numpy, probe)))
    except Exception as error:  # tracing runs the model's code, and each frontend has its own exceptions
        raise EngineUnavailable(
            f"OpenVINO cannot convert {_name(module)}: {str(error)[:500]}", remedy="use an engine that runs it in torch"
        ) from error
    finally:
        logging.root.setLevel(level)  # which the conversion raises


def _name(module: Any) -> str:
    return type(getattr(module, "model", module)).__name__


def _variants(path: Path, texts: Texts | None) -> list[Any]:
    """The graph in the file `path`, optimized if it is for texts, and as it is."""
    plain = runtime().read_model(path)
    if texts is None:
        return [plain]
    trimmed = runtime().read_model(path)
    narrow_masks(trimmed, texts.mask)
    if not texts.per_token:
        keep_first_token(trimmed)
    return [trimmed, plain]


def _agrees(graph: Any, probes: Sequence[Arrays], expected: Sequence[Arrays]) -> bool:
    compiled = runtime().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    for probe, outputs in zip(probes, expected, strict=True):
        for one, other in zip(infer(request, probe), outputs, strict=True):
            if one.shape != other.shape or not np.abs(one - other).max() <= DRIFT * np.abs(other).max():
                return False
    return True


def _name_nodes(graph: Any) -> None:
    """Name every node by its position, so that files are reproducible: the library numbers nodes per process."""
    graph.set_friendly_name("module")
    for position, node in enumerate(graph.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{position}")
