"""The fast forward pass: OpenVINO on the CPU in bf16 or fp32, without torch or transformers."""

from __future__ import annotations

import tempfile
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
from likewise.engine.openvino_calls import FIRST, Requests, compiled, has_bf16, infer, last_line, runtime
from likewise.engine.text.checkpoint import Checkpoint
from likewise.engine.text.compiled import PART
from likewise.engine.text.first_token import keep_first_token, narrow_masks
from likewise.engine.text.torch_forward import Forward, load_torch, torch_pass

HINTS = {"bf16": "bf16", "fp32": "f32"}
"""OpenVINO's name for each precision."""

BUCKET = 16
"""Lengths are padded to a multiple of this: fewer shapes to set up, and results that do not depend on the batch."""

DRIFT = 1e-3
"""Tolerance between converted fp32 logits and torch's, relative to the largest: the kernels differ."""

LONGEST = ["likewise", "max_tokens"]
"""Where the maximum number of tokens is stored in the runtime info of the model file."""

TORCH = "use the engine 'torch'"

Probe = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Ids and mask, both [batch, length]."""


def convert(checkpoint: Checkpoint, folder: Path) -> None:
    """Write `model.xml` and `model.bin` (fp32 weights, dynamic [batch, length]) into `folder`, for `read_graph`.

    The same checkpoint gives the same bytes. Raises MissingExtra without torch, transformers and openvino, ModelInvalid
    if the checkpoint does not load, EngineUnavailable if OpenVINO does not support the architecture or its fp32 logits
    differ from torch's.
    """
    ov = need("openvino", extra="openvino")
    model = load_torch(checkpoint)
    probes = _probes(checkpoint, int(model.config.vocab_size))
    reference = torch_pass(model)
    expected = [reference(*probe) for probe in probes]
    with tempfile.TemporaryDirectory() as scratch:
        traced = Path(scratch, "model.xml")
        ov.save_model(_traced(model, probes[0]), traced, compress_to_fp16=False)  # saving normalizes the shapes
        plain, trimmed = runtime().read_model(traced), runtime().read_model(traced)
        narrow_masks(trimmed)
        keep_first_token(trimmed)
        for graph in (trimmed, plain):
            if _agrees(graph, probes, expected):
                folder.mkdir(parents=True, exist_ok=True)
                graph.set_rt_info(checkpoint.max_tokens, LONGEST)
                _name_nodes(graph)
                ov.save_model(graph, folder / "model.xml", compress_to_fp16=False)
                return
    raise EngineUnavailable(
        f"{checkpoint.weights}: OpenVINO {ov.__version__} does not give torch's results in fp32", remedy=TORCH
    )


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph written by `convert`: its weights are memory-mapped once for all precisions opened from it."""

    model: Any
    folder: Path
    longest: int


def read_graph(folder: Path) -> Graph:
    """Read the graph in `folder`; raises MissingExtra without openvino, EngineUnavailable if it cannot be read."""
    core = runtime()
    try:
        model = core.read_model(folder / "model.xml")
        return Graph(model, folder, int(model.get_rt_info(LONGEST).astype(int)))
    except RuntimeError as error:
        raise EngineUnavailable(
            f"OpenVINO cannot read {folder}: {last_line(error)}", remedy="build the bundle again"
        ) from error


def open_openvino(graph: Graph, *, precision: str, threads: int | None = None) -> Forward:
    """The forward pass of `graph`. Thread-safe; each row's logits are bit-identical whatever the other rows are.

    precision: of the arithmetic, `bf16` or `fp32`; logits are fp32.  threads: None for OMP_NUM_THREADS or one per core;
    each thread computes separate parts of the window.  Raises EngineUnavailable if this CPU has no instructions for the
    precision, or the runtime cannot compile the graph.
    """
    core = runtime()
    if precision not in (offered := _precisions()):
        raise EngineUnavailable(
            f"OpenVINO does not support {precision} on this CPU ({core.get_property('CPU', 'FULL_DEVICE_NAME')})",
            remedy=f"use the precision {' or '.join(offered)}",
        )
    with FIRST:
        threads = threads or usable_threads()
        lanes = _Lanes(_compiled(graph, precision, threads), graph.longest, threads)
        lanes(np.zeros((1, 1), dtype=np.int64), np.ones((1, 1), dtype=np.int64))
    return lanes


class _Lanes:
    """Runs one inference per thread concurrently, so that threads do not wait for each other within a layer."""

    def __init__(self, model: Any, longest: int, lanes: int) -> None:
        self._longest = longest
        self._requests = Requests(model, lanes)
        self._pool = ThreadPoolExecutor(lanes, thread_name_prefix="likewise-openvino")

    def __call__(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        lengths = mask.shape[1] - mask[:, ::-1].argmax(axis=1)
        costs = [max(1, min(-(-int(length) // BUCKET) * BUCKET, self._longest)) for length in lengths]
        parts = windows(costs, PART)
        inputs = [(_cut(ids, part, costs[part[0]]), _cut(mask, part, costs[part[0]])) for part in parts]
        outputs = list(self._pool.map(self._infer, inputs)) if len(parts) > 1 else [self._infer(inputs[0])]
        logits = np.empty((len(ids), outputs[0].shape[1]), dtype=np.float32)
        for part, output in zip(parts, outputs, strict=True):
            logits[part] = output
        return logits

    def _infer(self, inputs: Probe) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._requests.infer(inputs)[0]
        return logits


def _cut(values: NDArray[np.int64], rows: list[int], length: int) -> NDArray[np.int64]:
    """The given rows at `length` columns; added columns are 0, which the mask excludes."""
    cut = np.zeros((len(rows), length), dtype=np.int64)
    width = min(length, values.shape[1])
    cut[:, :width] = values[rows, :width]
    return cut


def _precisions() -> list[str]:
    """The precisions that the CPU has instructions for."""
    return [name for name in HINTS if name == "fp32" or has_bf16()]


def _compiled(graph: Graph, precision: str, threads: int) -> Any:
    try:
        model = compiled(graph.model, HINTS[precision], threads)
    except RuntimeError as error:
        raise EngineUnavailable(
            f"OpenVINO cannot open {graph.folder} in {precision}: {last_line(error)}",
            remedy="use the precision fp32" if precision == "bf16" else "build the bundle again",
        ) from error
    release_pages(graph.folder / "model.bin")
    trim()  # memory that compiling needed
    return model


def _probes(checkpoint: Checkpoint, vocabulary: int) -> list[Probe]:
    """Ids and masks for tracing and comparing, with and without padding, in several shapes."""
    random = np.random.default_rng(0)
    probes = []
    for rows, length in ((2, 8), (3, 16), (1, 5)):
        length = min(length, checkpoint.max_tokens)
        lengths = np.linspace(length, 1, rows).round()[:, None]
        mask = (np.arange(length)[None, :] < lengths).astype(np.int64)
        ids = np.where(mask == 1, random.integers(0, vocabulary, mask.shape), checkpoint.pad_id)
        probes.append((ids, mask))
    return probes


def _traced(model: Any, probe: Probe) -> Any:
    ov, torch = need("openvino", extra="openvino"), need("torch", extra="torch")

    class Logits(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask).logits

    try:
        return ov.convert_model(Logits().eval(), example_input=tuple(torch.from_numpy(each) for each in probe))
    except Exception as error:  # tracing runs the model's code, and each frontend has its own exceptions
        raise EngineUnavailable(f"OpenVINO cannot convert {type(model).__name__}: {error}", remedy=TORCH) from error


def _agrees(graph: Any, probes: list[Probe], expected: list[NDArray[np.float32]]) -> bool:
    compiled = runtime().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    logits = [infer(request, probe)[0] for probe in probes]
    return all(
        np.abs(one - other).max() <= DRIFT * np.abs(other).max() for one, other in zip(logits, expected, strict=True)
    )


def _name_nodes(graph: Any) -> None:
    """Name every node by its position, so that files are reproducible: the library numbers nodes per process."""
    graph.set_friendly_name("classifier")
    for position, node in enumerate(graph.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{position}")
