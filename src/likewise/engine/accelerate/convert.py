"""Converts a recorded module to a graph, and determines whether bf16 is close enough for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from likewise.core.errors import EngineUnavailable
from likewise.core.extras import need
from likewise.engine.accelerate.agreement import COSINE
from likewise.engine.accelerate.form import MASK, Call, Form, same_texts
from likewise.engine.openvino_graph import DRIFT, Arrays, Compute, Graph, open_graph, read_graph, write_graph
from likewise.engine.text.calibration import calibrate

COMPARED = 64  # calls
ENOUGH = 64  # texts, below which bf16 is not offered
LONGEST = 1024  # tokens: longer texts, which no probe has, are computed in torch
PROBES = 6  # of different shapes, for a module that does not take texts
SENTENCE = "sentence_embedding"
VECTORS = frozenset({"last_hidden_state", "pooler_output", SENTENCE})
TEXT_INPUTS = frozenset({"input_ids", "token_type_ids", MASK})
PLAIN = "the model's own torch is used"


class Recorded(Protocol):
    """A module, its `forward`, calls of it, and why others were not recorded."""

    @property
    def module(self) -> Any: ...

    @property
    def original(self) -> Callable[..., Any]: ...

    @property
    def calls(self) -> Sequence[Call]: ...

    @property
    def refused(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True)
class Converted:
    """A graph in `folder`, and a line for the user about its bf16."""

    form: Form
    note: str


def convert_module(recorder: Recorded, folder: Path, *, bf16: bool, factor: float, source: str) -> Converted:
    """Convert the module of `recorder` from the calls that it has recorded.

    bf16: whether to try it.  factor: the safety factor for the drift of a classifier.  source: of the calls.
    Raises EngineUnavailable if its calls or the module are not supported, or the graph's fp32 results differ.
    """
    calls = _most_common(recorder)
    form = _form(recorder.module, calls)
    names, texts = form.inputs, form.texts
    probes = _text_probes(form, calls) if texts is not None else _probes(form, calls)
    library = type(recorder.module).__module__.startswith(("transformers.", "likewise."))
    write_graph(_wrapped(recorder, form), probes, folder, texts=texts, names=names, branches=library)
    graph = read_graph(folder)
    exact = open_graph(graph, "fp32", texts=texts)
    some = calls[:: max(1, len(calls) // COMPARED)]
    if (difference := max(_difference(form, exact, call) for call in some)) > DRIFT:
        raise EngineUnavailable(
            f"the outputs of {_name(recorder.module)} differ by {difference:.2g} when it is compiled", remedy=PLAIN
        )
    if bf16:
        form, note = _with_bf16(recorder.module, form, graph, exact, calls, factor, source)
    else:
        note = "bf16 is not requested"
    form.write(folder)
    return Converted(form, f"{_name(recorder.module)}: {note}")


def _name(module: Any) -> str:
    return type(module).__name__


def _most_common(recorder: Recorded) -> list[Call]:
    """The recorded calls of the form that is most common."""
    if not recorder.calls:
        why = next(iter(recorder.refused), "the model did not call it")
        raise EngineUnavailable(f"{_name(recorder.module)} is not compiled: {why}", remedy=PLAIN)
    shapes = Counter(call.shape for call in recorder.calls)
    shape = shapes.most_common(1)[0][0]
    return [call for call in recorder.calls if call.shape == shape]


def _form(module: Any, calls: Sequence[Call]) -> Form:
    first = calls[0]
    inputs = tuple(first.inputs)
    encoder = hasattr(module, "get_input_embeddings")
    takes_texts = same_texts(calls) and encoder and TEXT_INPUTS.issuperset(inputs)
    if encoder and not takes_texts and any(each.dtype.kind == "i" for each in first.inputs.values()):
        raise EngineUnavailable(f"{_name(module)} takes {', '.join(inputs)}, and not ids and a mask", remedy=PLAIN)
    if any(type(each).__module__.partition(".")[0] == "peft" for each in module.modules()):
        raise EngineUnavailable(f"{_name(module)} has adapters, which can be switched", remedy=PLAIN)
    limits = _text_limits(module) if takes_texts else {}
    axes = None if takes_texts else tuple({tuple(each.shape[1:] for each in call.inputs.values()) for call in calls})
    if any(each.ndim == 0 for each in first.inputs.values()):
        raise EngineUnavailable(f"{_name(module)} takes numbers that are not in a batch", remedy=PLAIN)
    rows = _embeddings(module)
    return Form(
        module=_name(module),
        inputs=inputs,
        dtypes=tuple(str(each.dtype) for each in first.inputs.values()),
        limits=tuple(limits.get(name, rows if each.dtype.kind == "i" else None) for name, each in first.inputs.items()),
        axes=axes,
        longest=min(LONGEST, _positions(module)) if takes_texts else None,
        constants=first.constants,
        kind=first.kind,
        outputs=tuple(first.outputs),
        per_token=tuple(name for name in first.outputs if _is_per_token(calls, name)) if takes_texts else (),
    )


def _text_limits(module: Any) -> Mapping[str, int]:
    return {
        "input_ids": int(module.get_input_embeddings().num_embeddings),
        MASK: 2,
        "token_type_ids": int(getattr(module.config, "type_vocab_size", 0) or 1),
    }


def _embeddings(module: Any) -> int | None:
    """The rows of its smallest table: the runtime does not check positions in tables, as torch does."""
    kind = need("torch", extra="torch").nn.Embedding
    return min((int(each.num_embeddings) for each in module.modules() if isinstance(each, kind)), default=None)


def _positions(module: Any) -> int:
    """The tokens of the longest text; of RoBERTa's kind, the first positions stand for padding."""
    limits = [getattr(module.config, "max_position_embeddings", None)]
    for each in module.modules():
        table: Any = getattr(each, "position_embeddings", None)
        if hasattr(table, "num_embeddings"):
            padding = table.padding_idx
            limits.append(int(table.num_embeddings) - (0 if padding is None else int(padding) + 1))
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=512)


def _is_per_token(calls: Sequence[Call], name: str) -> bool:
    shapes = [(call.inputs[MASK].shape[1], call.outputs[name].shape) for call in calls]
    several = len({length for length, _ in shapes}) > 1
    return all(len(shape) > (1 if several else 2) and shape[1] == length for length, shape in shapes)


def _wrapped(recorder: Recorded, form: Form) -> Any:
    """The module as a function of its tensors, which returns a tuple of tensors."""
    torch = need("torch", extra="torch")

    class Module(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = recorder.module

        def forward(self, *tensors: Any) -> Any:
            found = recorder.original(**dict(zip(form.inputs, tensors, strict=True)), **form.constants)
            if isinstance(found, torch.Tensor):
                return found
            return found if type(found) is tuple else tuple(found[name] for name in form.outputs)

    return Module().eval()


def _text_probes(form: Form, calls: Sequence[Call]) -> list[Arrays]:
    """Inputs in several shapes, up to the longest, with and without padding, of values that have been recorded."""
    random = np.random.default_rng(0)
    values = {name: np.unique(np.concatenate([call.inputs[name].ravel() for call in calls])) for name in form.inputs}
    probes: list[Arrays] = []
    longest = form.longest or 1
    for rows, length in ((2, 8), (3, 16), (1, 5), (2, longest), (2, longest // 2 + 3)):
        length = min(length, longest)
        lengths = np.linspace(length, 1, rows).round()[:, None]
        mask = (np.arange(length)[None, :] < lengths).astype(np.int64)
        probes.append([mask if name == MASK else random.choice(values[name], mask.shape) for name in form.inputs])
    return probes


def _probes(form: Form, calls: Sequence[Call]) -> list[Arrays]:
    """Recorded inputs of different shapes, and two of them as one batch."""
    by_shape = {tuple(each.shape for each in call.inputs.values()): list(call.inputs.values()) for call in calls}
    probes = list(by_shape.values())[:PROBES]
    pairs = (probes[0], *(list(call.inputs.values()) for call in calls[-1:]))
    if len({tuple(each.shape[1:] for each in pair) for pair in pairs}) == 1:
        probes.append([np.concatenate(both) for both in zip(*pairs, strict=True)])
    return [[np.ascontiguousarray(each) for each in probe] for probe in probes if len(probe) == len(form.inputs)]


def _difference(form: Form, compute: Compute, call: Call) -> float:
    """The largest difference of an output from the recorded one, relative to the largest value."""
    found = compute(list(call.inputs.values()))
    largest = 0.0
    for name, one in zip(form.outputs, found, strict=True):
        one, other = _tokens(form, name, call, one), _tokens(form, name, call, call.outputs[name])
        if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
            return float("inf")
        largest = max(largest, float(np.abs(one - other).max(initial=0.0) / max(1e-6, np.abs(other).max(initial=0.0))))
    return largest


def _tokens(form: Form, name: str, call: Call, values: NDArray[Any]) -> NDArray[Any]:
    """The values without those of padding."""
    return values[call.inputs[MASK] == 1] if name in form.per_token else values


def _with_bf16(
    module: Any, form: Form, graph: Graph, exact: Compute, calls: Sequence[Call], factor: float, source: str
) -> tuple[Form, str]:
    """The form with what bf16 gives for the recorded calls, and a line for the user."""
    labels = form.outputs == ("logits",) and not form.per_token and _classifies(module, calls)
    if not labels and not (form.longest is not None and VECTORS.issuperset(form.outputs)):
        return form, "bf16 is not offered, because it is neither a classifier nor an encoder of texts"
    if (texts := sum(len(call.inputs[MASK]) for call in calls)) < ENOUGH:
        return form, f"bf16 is not offered, because {texts} texts are too few to compare it on; use --calibration FILE"
    try:
        fast = open_graph(graph, "bf16", texts=form.texts)
    except EngineUnavailable as error:
        return form, f"bf16 is not offered: {error.cause}"
    if labels:
        both = [np.concatenate([each(list(call.inputs.values()))[0] for call in calls]) for each in (fast, exact)]
        calibration = calibrate(*both, factor=factor, source=source)
        return replace(form, calibration=calibration), f"bf16: {calibration}"
    difference = max(_cosine(form, call, fast, exact) for call in calls)
    note = f"bf16: vectors differ by at most {difference:.2g} (1 - cosine; tolerance {COSINE:g})"
    return replace(form, vectors=difference <= COSINE), note


def _classifies(module: Any, calls: Sequence[Call]) -> bool:
    """Whether its answer is the label with the largest logit."""
    config = getattr(module, "config", None)
    single = getattr(config, "problem_type", None) in (None, "single_label_classification")
    named = type(module).__name__.endswith("ForSequenceClassification")
    return single and named and all(call.outputs["logits"].shape[1:] > (1,) for call in calls)


def _cosine(form: Form, call: Call, fast: Compute, exact: Compute) -> float:
    """The largest 1 - cosine of two vectors of a call."""
    inputs = list(call.inputs.values())
    largest = 0.0
    for name, one, other in zip(form.outputs, fast(inputs), exact(inputs), strict=True):
        one, other = (_tokens(form, name, call, each).astype(np.float64) for each in (one, other))
        lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
        largest = max(largest, float(1 - ((one * other).sum(axis=-1) / np.maximum(lengths, 1e-12)).min(initial=1.0)))
    return largest
