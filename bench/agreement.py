"""Compares the default engine's labels and scores with torch in fp32 on many reviews."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import likewise
from bench.model import FOLDER, subject, texts
from bench.options import Options
from likewise.bundles.open import Bundle
from likewise.core.engine import Engine, predict_items
from likewise.core.items import Row
from likewise.core.results import Ok
from likewise.engine.openvino_graph import read_graph
from likewise.engine.text import TextEngine
from likewise.engine.text.compiled import EXACT, FAST, Compiled, classifier_path, open_compiled, open_pass, text_engine
from likewise.engine.text.guard import guarded
from likewise.pipeline.pipeline import classifiers

REVIEWS = 2500
CHUNK = 256

Logits = NDArray[np.float32]


class Reference:
    """torch's logits, cached in `.bench` between runs: one line per text, written as soon as it is computed."""

    def __init__(self, bundle: Bundle, open_torch: Callable[[], TextEngine]) -> None:
        self._path = FOLDER / f"torch-{version('torch')}-{bundle.digest.partition(':')[2][:12]}.jsonl"
        self._open = open_torch
        self._engine: TextEngine | None = None
        self._known = dict(map(json.loads, self._path.read_text().splitlines())) if self._path.exists() else {}
        self.computed = 0

    def logits(self, texts: Sequence[str]) -> Logits:
        """Logits of shape [texts, labels] in fp32; computes those that are not cached."""
        keys = [hashlib.sha256(text.encode()).hexdigest()[:24] for text in texts]
        if missing := {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}:
            fresh = self._compute(list(missing.values()))
            with self._path.open("a", encoding="utf-8") as stream:
                for key, row in zip(missing, fresh.tolist(), strict=True):
                    stream.write(json.dumps([key, row]) + "\n")
                    self._known[key] = row
            self.computed += len(missing)
        return np.array([self._known[key] for key in keys], dtype=np.float32)

    def _compute(self, texts: Sequence[str]) -> Logits:
        self._engine = self._engine or self._open()
        return self._engine.logits(self._engine.prepare(texts))


class Guarded:
    """The default engine's compiled classifier, with a count of the rows that it recomputes in fp32."""

    def __init__(self, folder: Path, precision: str, max_length: int) -> None:
        self.recomputed = 0
        facts = Compiled.read(folder)
        if precision == EXACT or facts.calibration is None:
            self._engine = open_compiled(folder, precision=precision, max_length=max_length)
            return
        graph = read_graph(folder)
        exact = open_pass(graph, "fp32")

        def counted(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Logits:
            self.recomputed += len(ids)
            return exact(ids, mask)

        forward = guarded(open_pass(graph, "bf16"), counted, facts.calibration.guard)
        self._engine = text_engine(folder, facts, forward, max_length)

    def logits(self, texts: Sequence[str]) -> Logits:
        """Logits of shape [texts, labels]."""
        return self._engine.logits(self._engine.prepare(texts))


def agreement(options: Options) -> dict[str, object]:
    """Number of equal labels, largest difference of a probability, and number of rows that the guard recomputed.

    Labels are the default engine's predictions; probabilities come from its classifier, opened separately.
    """
    bundle, reviews = likewise.open_bundle(subject().bundle), texts(options.reviews or REVIEWS)
    ((uri, longest),) = classifiers(bundle.manifest.pipeline).items()
    engine = bundle.engine()
    if engine.spec.name == "torch":
        raise SystemExit("the bundle's default engine on this machine is torch itself: there is nothing to compare")
    reference = Reference(bundle, lambda: TextEngine.open(bundle.resolve(uri), max_length=longest))
    ours = Guarded(bundle.path / classifier_path(uri), engine.spec.precision, longest)
    labels = Compiled.read(bundle.path / classifier_path(uri)).labels
    equal, largest, changed = 0, 0.0, []
    for part in _parts(reviews):
        expected, actual = reference.logits(part), ours.logits(part)
        expected_labels = [labels[number] for number in expected.argmax(axis=1)]
        predicted = _labels(engine, part)
        equal += sum(map(str.__eq__, predicted, expected_labels))
        pairs = zip(part, predicted, expected_labels, strict=True)
        changed += [text[:80] for text, one, other in pairs if one != other]
        largest = max(largest, float(np.abs(_softmax(actual) - _softmax(expected)).max()))
    return {
        "engine": engine.spec.label,
        "reference": f"torch {version('torch')} in fp32",
        "reviews": len(reviews),
        "labels_equal": equal,
        "labels_moved": len(changed),
        "moved": changed,
        "largest_score_difference": largest,
        "share_again_in_fp32": round(ours.recomputed / len(reviews), 4) if engine.spec.precision == FAST else None,
        "reference_computed_now": reference.computed,
    }


def _parts(reviews: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(reviews), CHUNK):
        yield reviews[start : start + CHUNK]
        if start % (10 * CHUNK) == 0:
            print(f"  {start:,} of {len(reviews):,} reviews", flush=True)


def _labels(engine: Engine, texts: Sequence[str]) -> list[str]:
    labels = []
    for result in predict_items(engine, [Row(("text",), (text,)) for text in texts]):
        if not isinstance(result, Ok) or not isinstance(result.value, dict):
            raise SystemExit(f"the engine failed: {result}")
        labels.append(str(json.loads(result.value["text"])["response"]["prediction_label"][0]))
    return labels


def _softmax(logits: Logits) -> NDArray[np.float64]:
    odds = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))
