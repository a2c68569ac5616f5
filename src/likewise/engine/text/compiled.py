"""A compiled classifier's folder, which contains everything needed to run it without torch or transformers.

model.xml, model.bin   the graph, written by `engine.text.openvino.convert`
tokenizer.json         the checkpoint's tokenizer
classifier.json        labels, padding, the longest input, and the calibration
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from likewise.core.bounds import stated
from likewise.core.cores import usable_threads
from likewise.core.errors import BundleInvalid, EngineUnavailable
from likewise.engine.text.checkpoint import Checkpoint
from likewise.engine.text.engine import TextEngine
from likewise.engine.text.guard import guarded, lazy_forward
from likewise.engine.text.torch_forward import Forward

if TYPE_CHECKING:
    from likewise.engine.openvino_graph import Graph

METADATA = "classifier.json"
TOKENIZER = "tokenizer.json"
FORMAT = 1
UNLIMITED = 1 << 20  # tokens: the text engine passes all its encodings to the forward pass at once
FAST, EXACT = "bf16+fp32", "fp32"
"""Precisions of the compiled engine: bf16 with borderline results recomputed in fp32; fp32 throughout."""


def classifier_path(uri: str) -> str:
    """The folder of the compiled classifier of the model `uri`, relative to the bundle; only depends on the URI."""
    return f"engine/openvino/{hashlib.sha256(uri.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class Calibration:
    """The differences between bf16 and fp32 in the same runtime on the calibration texts.

    texts: their number; source: a description of their origin.  drift: the largest change of a margin, in logits.
    guard: rows with a margin below it are recomputed: `factor` x drift, but at least a minimum.
    share: the fraction of texts that are recomputed.  moved: the number of labels that bf16 alone changed.
    agreement: the fraction of texts that have fp32's label with the guard.  refused: why bf16 is not offered, or empty.
    outside: the number of labels that changed outside the guard.
    """

    source: str
    texts: int
    drift: float
    factor: float
    guard: float
    share: float
    moved: int
    agreement: float
    refused: str = ""
    outside: int = 0

    def __str__(self) -> str:
        different = round((1 - self.agreement) * self.texts)
        same = f"{different:,} other labels than" if different else "the same labels as"
        line = (
            f"{same} fp32 on {self.texts:,} texts ({self.source}), {stated(different, self.texts)}; {self.share:.1%} "
            f"recomputed in fp32 (margin below {self.guard:.3g}, {self.factor:g} x the drift of {self.drift:.3g}; "
            f"without that, {self.moved} labels change)"
        )
        return f"not offered: {self.refused}; {line}" if self.refused else line


@dataclass(frozen=True, slots=True)
class Compiled:
    """The contents of `classifier.json`. calibration: None if bf16 was not tried."""

    labels: tuple[str, ...]
    pad_id: int
    max_tokens: int
    calibration: Calibration | None = None

    def write(self, folder: Path) -> None:
        """Write `classifier.json` into `folder`; equal values give the same bytes."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / METADATA).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Compiled:
        """Read `classifier.json` from `folder`; raises BundleInvalid if it is missing or in an unsupported format."""
        try:
            raw = json.loads((folder / METADATA).read_text(encoding="utf-8"))
            if raw.pop("format") != FORMAT:
                raise ValueError(f"not format {FORMAT}")
            calibration = raw.pop("calibration")
            labels = tuple(map(str, raw.pop("labels")))
            return cls(labels, calibration=None if calibration is None else Calibration(**calibration), **raw)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleInvalid(
                f"{folder / METADATA} is not valid: {error}",
                remedy="bundle the model again with this version: likewise bundle MODEL -o DIR",
            ) from error


def compile_classifier(checkpoint: Checkpoint, folder: Path) -> Compiled:
    """Compile `checkpoint` into the new folder `folder`; raises MissingExtra without torch or openvino."""
    from likewise.engine.text.openvino import convert

    folder.mkdir(parents=True)
    convert(checkpoint, folder)
    shutil.copyfile(checkpoint.tokenizer, folder / TOKENIZER)
    compiled = Compiled(checkpoint.labels, checkpoint.pad_id, checkpoint.max_tokens)
    compiled.write(folder)
    return compiled


def open_compiled(folder: Path, *, precision: str, max_length: int) -> TextEngine:
    """Open the classifier in `folder` in the precision FAST or EXACT.

    Raises MissingExtra without openvino, EngineUnavailable if this CPU does not support bf16, BundleInvalid.
    """
    from likewise.engine.openvino_graph import read_graph

    compiled, graph = Compiled.read(folder), read_graph(folder)
    exact = partial(open_pass, graph, "fp32")
    if precision == EXACT:
        return text_engine(folder, compiled, exact(), max_length)
    if compiled.calibration is None or compiled.calibration.refused:
        raise EngineUnavailable(f"{folder.name} does not offer bf16", remedy="use --precision fp32")
    # fp32 costs memory and start-up time, so it is opened for the first text that needs it, on few cores.
    recompute = lazy_forward(partial(exact, threads=recompute_threads(compiled.calibration.share)))
    forward = guarded(open_pass(graph, "bf16"), recompute, compiled.calibration.guard)
    return text_engine(folder, compiled, forward, max_length)


def text_engine(folder: Path, compiled: Compiled, forward: Forward, max_length: int) -> TextEngine:
    """The text engine that uses `forward` and the tokenizer in `folder`."""
    checkpoint = Checkpoint(folder, folder / TOKENIZER, compiled.labels, compiled.pad_id, compiled.max_tokens)
    return TextEngine.of(checkpoint, forward, max_length=max_length, budget=UNLIMITED)


def open_pass(graph: Graph, precision: str, *, threads: int | None = None) -> Forward:
    """The forward pass of `graph` in `bf16` without a guard, or in `fp32`; raises what `open_compiled` does."""
    from likewise.engine.text.openvino import open_openvino

    try:
        return open_openvino(graph, precision=precision, threads=threads)
    except EngineUnavailable as error:  # for bf16: the CPU lacks the instructions, or they are disabled
        if precision == "fp32":
            raise
        remedy = "use --precision fp32, whose labels are the same, or a CPU with bf16 instructions"
        raise EngineUnavailable(error.cause, remedy=remedy) from error


def recompute_threads(share: float) -> int:
    """Threads for recomputing: fp32 takes about twice as long, and twice as many rows may be borderline."""
    cores = usable_threads()
    return min(cores, max(1, math.ceil(4 * share * cores)))
