"""A compiled classifier's folder: a graph and all that its run time needs beside it, neither torch nor transformers.

model.xml, model.bin   the graph, as `engine.text.openvino.convert` wrote it
tokenizer.json         the checkpoint's own
classifier.json        labels, padding, the longest input, and what the calibration found
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

from likewise.core.cores import usable_threads
from likewise.core.errors import BundleInvalid, EngineUnavailable
from likewise.engine.text.checkpoint import Checkpoint
from likewise.engine.text.engine import TextEngine
from likewise.engine.text.guard import guarded, later
from likewise.engine.text.torch_forward import Forward

if TYPE_CHECKING:
    from likewise.engine.text.openvino import Graph

FACTS = "classifier.json"
TOKENIZER = "tokenizer.json"
FORMAT = 1
WHOLE = 1 << 20  # tokens: the text engine hands over all it has
PART = 512
"""Padded tokens in one inference: what stays in a core's own cache. The forward pass splits what is more."""

FAST, EXACT = "bf16+fp32", "fp32"
"""Precisions of the compiled engine: bf16 with near things again in fp32; fp32 throughout."""


def place(uri: str) -> str:
    """Where a bundle keeps the compiled classifier of the model `uri`: the same for the same URI everywhere."""
    return f"engine/openvino/{hashlib.sha256(uri.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What bf16 changed on the calibration texts, against fp32 in the same runtime.

    texts: how many; source: where they came from.  drift: the largest change of a margin, in logits.
    guard: margins below it are computed again: `factor` x drift, and at least a floor.
    share: of the texts that are.  moved: labels that bf16 alone changed; agreement: texts whose label is fp32's behind
    the guard, as a share.  refused: why bf16 is not offered, or empty.
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
        line = (
            f"drift {self.drift:.3g}, guard {self.guard:.3g} ({self.factor:g} x), {self.share:.1%} again in fp32, "
            f"{self.moved} labels moved by bf16 alone, {self.agreement:.2%} as fp32; on {self.source}"
        )
        return f"not offered: {self.refused}; {line}" if self.refused else line


@dataclass(frozen=True, slots=True)
class Compiled:
    """What `classifier.json` says. calibration: None where bf16 was not tried."""

    labels: tuple[str, ...]
    pad_id: int
    max_tokens: int
    calibration: Calibration | None = None

    def write(self, folder: Path) -> None:
        """Into `folder`; the same bytes for the same facts."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / FACTS).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Compiled:
        """From `folder`; BundleInvalid where it is of another format, or none."""
        try:
            raw = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            if raw.pop("format") != FORMAT:
                raise ValueError(f"not format {FORMAT}")
            held = raw.pop("calibration")
            labels = tuple(map(str, raw.pop("labels")))
            return cls(labels, calibration=None if held is None else Calibration(**held), **raw)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleInvalid(
                f"{folder / FACTS} is not a compiled classifier's: {error}",
                remedy="bundle the model again with this version: likewise bundle MODEL -o DIR",
            ) from error


def compile_classifier(checkpoint: Checkpoint, folder: Path) -> Compiled:
    """Convert `checkpoint` into the new folder `folder`; needs torch and openvino, else MissingExtra."""
    from likewise.engine.text.openvino import convert

    folder.mkdir(parents=True)
    convert(checkpoint, folder)
    shutil.copyfile(checkpoint.tokenizer, folder / TOKENIZER)
    facts = Compiled(checkpoint.labels, checkpoint.pad_id, checkpoint.max_tokens)
    facts.write(folder)
    return facts


def open_compiled(folder: Path, *, precision: str, max_length: int) -> TextEngine:
    """The classifier in `folder`, in FAST or EXACT.

    Raises MissingExtra without openvino, EngineUnavailable where this CPU cannot compute in bf16, BundleInvalid.
    """
    from likewise.engine.text.openvino import read_graph

    facts, graph = Compiled.read(folder), read_graph(folder)
    exact = partial(open_pass, graph, "fp32")
    if precision == EXACT:
        return text_engine(folder, facts, exact(), max_length)
    if facts.calibration is None or facts.calibration.refused:
        raise EngineUnavailable(f"{folder.name} has no guard, and so no bf16", remedy="use --precision fp32")
    # fp32 costs memory and start-up time: the first text that needs it opens it, on the cores that it keeps busy.
    again = later(partial(exact, threads=_busy(facts.calibration.share)))
    forward = guarded(open_pass(graph, "bf16"), again, facts.calibration.guard)
    return text_engine(folder, facts, forward, max_length)


def text_engine(folder: Path, facts: Compiled, forward: Forward, max_length: int) -> TextEngine:
    """The text engine around `forward`, with the tokenizer in `folder`."""
    checkpoint = Checkpoint(folder, folder / TOKENIZER, facts.labels, facts.pad_id, facts.max_tokens)
    return TextEngine.of(checkpoint, forward, max_length=max_length, budget=WHOLE)


def open_pass(graph: Graph, precision: str, *, threads: int | None = None) -> Forward:
    """The forward pass of `graph` in `bf16`, with no guard, or in `fp32`; raises what `open_compiled` does."""
    from likewise.engine.text.openvino import open_openvino

    try:
        return open_openvino(graph, precision=precision, threads=threads)
    except EngineUnavailable as error:  # for bf16: no such instructions, or they are switched off
        if precision == "fp32":
            raise
        remedy = "use --precision fp32, whose labels are the same, or a CPU with bf16 instructions"
        raise EngineUnavailable(error.cause, remedy=remedy) from error


def _busy(share: float) -> int:
    """Cores for the rows that are computed again: fp32 takes about twice as long, and texts may be twice as near."""
    cores = usable_threads()
    return min(cores, max(1, math.ceil(4 * share * cores)))
