"""Compiles the classifiers of a bundle's pipeline, compares them with the reference engine and calibrates bf16.

This happens in a child process, which frees the memory of torch and openvino; the model's own code does not run there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.errors import EngineUnavailable
from likewise.engine.child import Task, completed, run_child, run_task
from likewise.engine.kinds import CalibrationTexts, CompiledEngines, CompileRequest
from likewise.engine.openvino_calls import need_to_compile
from likewise.engine.openvino_graph import read_graph
from likewise.engine.text.calibration import calibrate, why_unequal
from likewise.engine.text.checkpoint import find_checkpoint
from likewise.engine.text.compiled import EXACT, FAST, classifier_path, compile_classifier, open_pass, text_engine
from likewise.engine.text.engine import TextEngine
from likewise.engine.text.texts import MAX_TEXTS, SAMPLE, default_texts, sample, spread
from likewise.pipeline.pipeline import classifiers

TIMEOUT = 900.0  # seconds


def compile_engines(bundle: Bundle, request: CompileRequest) -> CompiledEngines:
    """Compile the classifiers (at least one) of the unfinished `bundle` into it.

    Returns a failure if the options require bf16 and it cannot be offered, or if labels of the user's texts changed
    outside the guard.  Raises EngineUnavailable if compilation is not possible on this machine.
    """
    models = classifiers(bundle.manifest.pipeline)
    need_to_compile()
    request.report(f"compiling {', '.join(models)}")
    result = _in_child(bundle, models, request)
    _refuse_unequal(result, models)
    try:
        fast = _offers_bf16(result, models, request)
    except EngineUnavailable as error:
        return CompiledEngines(failure=error)
    entries = tuple(EngineEntry("openvino", precision) for precision in ((FAST, EXACT) if fast else (EXACT,)))
    return CompiledEngines(entries, tuple(result["texts"]))


def _in_child(bundle: Bundle, models: Mapping[str, int], request: CompileRequest) -> dict[str, Any]:
    task: dict[str, object] = {
        "classifiers": [
            {"from": str(bundle.resolve(uri)), "to": str(bundle.path / classifier_path(uri)), "max_length": longest}
            for uri, longest in models.items()
        ],
        "model": str(bundle.model_path),
        "texts": None if request.texts is None else asdict(_some(request.texts)),
        "bf16": request.options.precision != "fp32",
    }
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return run_child(
        "likewise.pipeline.compile",
        task,
        request.work,
        environment=environment,
        timeout=TIMEOUT,
        progress=request.progress,
    )


def _some(texts: CalibrationTexts) -> CalibrationTexts:
    """At most MAX_TEXTS of the texts; there are more for `--agreement`."""
    return replace(texts, values=tuple(spread(texts.values, MAX_TEXTS)))


def _refuse_unequal(result: Mapping[str, Sequence[Mapping[str, object]]], models: Mapping[str, int]) -> None:
    for uri, each in zip(models, result["classifiers"], strict=True):
        if each["unequal"]:
            raise EngineUnavailable(
                f"{uri} gives different results when compiled: {each['unequal']}", remedy="the engine torch is used"
            )


def _offers_bf16(
    result: Mapping[str, Sequence[Mapping[str, object]]], models: Mapping[str, int], request: CompileRequest
) -> bool:
    """Whether bf16 is offered; reports the outcome for each model."""
    refused = []
    for uri, each in zip(models, result["classifiers"], strict=True):
        why = str(each["refused"])
        refused += [f"{uri}: {why}"] if why else []
        request.report(f"bf16 for {uri}: " + (why or str(each["summary"])))
    moved = request.texts is not None and any(each["outside"] for each in result["classifiers"])
    if refused and (moved or request.options.precision == "bf16"):
        raise EngineUnavailable(
            f"bf16 is not offered: {'; '.join(refused)}",
            remedy="bundle with --precision fp32, or with more typical input texts in --calibration FILE",
        )
    return not refused


# --- in the child -----------------------------------------------------------------------------------------------------


def _compile_all(task: Task, work: Path) -> dict[str, object]:  # noqa: ARG001
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # would report each conversion to Intel
    results, chosen = [], list[str]()
    for each in task["classifiers"]:
        texts, result = _compile(Path(each["from"]), Path(each["to"]), int(each["max_length"]), task)
        results.append(result)
        chosen = chosen or list(sample(texts))
    return {"classifiers": results, "texts": chosen}


def _compile(source: Path, target: Path, longest: int, task: Task) -> tuple[CalibrationTexts, dict[str, object]]:
    """Compile the checkpoint in `source` into `target`; returns the calibration texts and the outcome."""
    checkpoint = find_checkpoint(source)
    longest = min(longest, checkpoint.max_tokens)
    given, model = task["texts"], Path(task["model"])
    texts = CalibrationTexts(**given) if given else default_texts(model, checkpoint.tokenizer, longest)
    compiled = compile_classifier(checkpoint, target)
    completed(0.2)
    graph = read_graph(target)
    exact = text_engine(target, compiled, open_pass(graph, "fp32"), longest)
    encodings = exact.prepare(texts.values)
    logits = exact.logits(encodings)
    completed(0.5)
    some = slice(None, None, max(1, len(encodings) // SAMPLE))  # torch is slow, and a conversion error affects any text
    reference = TextEngine.open(source, max_length=longest).logits(encodings[some])
    completed(0.7)
    result: dict[str, object] = {
        "unequal": why_unequal(logits[some], reference),
        "refused": "not requested",
        "summary": "",
        "outside": 0,
    }
    if task["bf16"]:
        try:
            fast = text_engine(target, compiled, open_pass(graph, "bf16"), longest).logits(encodings)
        except EngineUnavailable as error:
            return texts, {**result, "refused": error.cause}
        calibration = calibrate(fast, logits, factor=texts.factor, source=texts.source)
        replace(compiled, calibration=calibration).write(target)
        result |= {"refused": calibration.refused, "summary": str(calibration), "outside": calibration.outside}
    return texts, result


if __name__ == "__main__":  # python -m likewise.pipeline.compile TASK RESULT
    run_task(_compile_all, *sys.argv[1:])
