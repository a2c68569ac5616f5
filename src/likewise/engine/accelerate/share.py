"""Lets a compiled classifier decide by a text's first tokens, where texts prove how many predictions stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.bounds import percent, upper_bound
from likewise.core.errors import EngineUnavailable
from likewise.core.items import Item
from likewise.core.results import Result
from likewise.engine.accelerate.agreement import Agreement, Tolerance, agreement
from likewise.engine.accelerate.form import MASK, Form
from likewise.engine.accelerate.modules import logits_of
from likewise.engine.accelerate.predicting import predicted
from likewise.engine.engine_options import AGREED
from likewise.engine.openvino_graph import Arrays, open_graph, read_graph
from likewise.engine.text.cascade import PREFIXES, Cascade, choose, choosing, proving
from likewise.engine.text.compiled import EXACT
from likewise.engine.text.guard import Logits
from likewise.engine.text.torch_forward import Forward

LABELS = Tolerance(1.0, 2.0)
"""Scores may be any: those of a text that its first tokens decide are scores of these."""

BATCH = 64  # texts


def add_cascade(bundle: Bundle, kind: str, items: Sequence[Item], share: float, source: str) -> Agreement:
    """Add a cascade to the compiled classifier of `bundle`, compared with fp32 on texts that it was not chosen on.

    kind: of the compiled engine.  share: of equal predictions that has to be proved, 0 to 1.  source: of the items.
    Raises EngineUnavailable if there is not exactly one classifier, no cascade is worth it, or the share is not proved.
    """
    folder = bundle.path / "engine" / kind
    forms = {path.parent: Form.read(path.parent) for path in folder.glob("*/module.json")}
    classifiers = [path for path, form in forms.items() if form.calibration is not None and form.fast]
    if len(classifiers) != 1:
        raise _refused(f"it needs one classifier of texts in bf16, and the model has {len(classifiers)}")
    path = classifiers[0]
    form = forms[path]
    seen: dict[str, list[tuple[Arrays, Arrays]]] = {}
    predicted(bundle, EngineEntry(kind, EXACT), [items[at] for at in choosing(len(items))], seen)
    cascade = _chosen(path, form, seen[path.name], share)
    replace(form, cascade=cascade).write(path)
    others = [items[at] for at in proving(len(items))]
    results: list[list[Result]] = []
    labels: list[NDArray[np.intp]] = []
    for precision in (EXACT, f"{100 * share:g}{AGREED}"):
        seen = {}
        results.append(predicted(bundle, EngineEntry(kind, precision), others, seen)[0])
        labels.append(np.concatenate([outputs[0].argmax(axis=1) for _, outputs in seen[path.name]]))
    try:
        return _proved(results, labels, share, f"{len(others):,} rows of {source}; {cascade}")
    except EngineUnavailable:
        form.write(path)
        raise


def _proved(
    results: Sequence[Sequence[Result]], labels: Sequence[NDArray[np.intp]], share: float, source: str
) -> Agreement:
    """The agreement of predictions in fp32 and with the cascade, and of the labels of their classifier.

    A prediction may consist of numbers, which do not count here.
    """
    expected, found = results
    made = replace(agreement(found, expected, LABELS, source), reference="the compiled fp32 engine")
    if len(labels[0]) != len(labels[1]):
        raise _refused("the model calls its classifier for other texts")
    made = replace(made, differ=max(made.differ, int((labels[0] != labels[1]).sum())))
    bound = upper_bound(made.differ, made.rows)
    if bound > 1 - share:
        raise _refused(
            f"{made.differ:,} of {made.rows:,} predictions differ, which proves that at most {percent(bound)} do, and "
            f"not {percent(1 - share)}"
        )
    return made


def _chosen(path: Path, form: Form, seen: Sequence[tuple[Arrays, Arrays]], share: float) -> Cascade:
    """The cascade for the recorded inputs and logits of the module."""
    at = form.inputs.index(MASK)
    texts = [[each[row : row + 1] for each in inputs] for inputs, _ in seen for row in range(len(inputs[at]))]
    exact = np.concatenate([outputs[0] for _, outputs in seen])
    lengths = np.array([text[at].shape[1] - text[at][0, ::-1].argmax() for text in texts])
    fast = logits_of(open_graph(read_graph(path), "bf16", texts=form.texts))
    prefixes = {
        tokens: _first(fast, texts, tokens)
        for tokens in PREFIXES
        if tokens < (form.longest or 0) and (lengths > tokens).any()
    }
    assert form.calibration is not None  # noqa: S101  it is a classifier in bf16
    if (cascade := choose(prefixes, exact, lengths, share=share, guard=form.calibration.guard)) is None:
        raise _refused("the first tokens of too few texts decide their labels clearly")
    return cascade


def _first(fast: Forward, texts: Sequence[Arrays], tokens: int) -> Logits:
    """The logits of the first tokens of each text."""
    logits = []
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        logits.append(fast(*(_padded([text[at] for text in batch], tokens) for at in range(len(batch[0])))))
    return np.concatenate(logits)


def _padded(rows: Sequence[NDArray[Any]], tokens: int) -> NDArray[np.int64]:
    padded = np.zeros((len(rows), tokens), dtype=np.int64)
    for at, row in enumerate(rows):
        cut = row[0, :tokens]
        padded[at, : len(cut)] = cut
    return padded


def _refused(why: str) -> EngineUnavailable:
    return EngineUnavailable(f"no engine for --agreement: {why}", remedy="use a lower --agreement, or none")
