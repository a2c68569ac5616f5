"""Compiles the modules of a bundle's model in a child process, and compares its predictions with those of the original.

The child loads the model, records what it calls its modules with while it predicts the example and calibration texts,
converts the modules, and predicts the same rows again.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle, open_bundle
from likewise.core.engine import Engine, predict_items
from likewise.core.errors import EngineUnavailable, LikewiseError
from likewise.core.items import Item, Request, Row, Table
from likewise.core.results import Failed, Result
from likewise.engine.accelerate.agreement import COSINE, SCORE, Agreement, Tolerance, agreement
from likewise.engine.accelerate.convert import convert_module
from likewise.engine.accelerate.form import METADATA, Form
from likewise.engine.accelerate.forward import Recorder
from likewise.engine.accelerate.loading import watching
from likewise.engine.accelerate.predicting import predicted
from likewise.engine.accelerate.rows import generated, rows_of
from likewise.engine.accelerate.share import add_cascade
from likewise.engine.accelerate.texts.build import Whole, check_longest, check_tokens, describe
from likewise.engine.child import Task, completed, isolated_environment, run_child, run_task
from likewise.engine.engine_options import AGREED, TOLERANT
from likewise.engine.example import read_example
from likewise.engine.kinds import CalibrationTexts, CompiledEngines, CompileRequest, kind_of
from likewise.engine.openvino_calls import need_to_compile
from likewise.engine.text.compiled import EXACT, FAST

TIMEOUT = 1800.0  # seconds
RECORDED, CONVERTED = 0.6, 0.8  # typical fractions of the whole duration after which these steps are complete
RECORDING_S = 90.0  # of recording; a slow model is compared on fewer texts


def compile_modules(
    kind: str, native: str, bundle: Bundle, request: CompileRequest, *, texts: str | None = None
) -> CompiledEngines:
    """Compile what the model of the unfinished `bundle` loads into `engine/KIND/`.

    kind: the name of the compiled engine.  native: of the kind that runs the model as it was logged.  texts: of the
    kind that is used instead, if the model only makes a prediction of each text.
    Raises EngineUnavailable if nothing can be compiled, or if predictions differ.
    """
    need_to_compile()
    request.report("compiling the modules that the model loads")
    tolerance = SCORE if request.options.tolerance is None else request.options.tolerance
    task: dict[str, object] = {
        "bundle": str(bundle.path),
        "kind": kind,
        "native": native,
        "for_texts": texts,
        "texts": None if request.texts is None else asdict(request.texts),
        "bf16": request.options.precision != "fp32",
        "tolerance": tolerance,
        "agreement": request.options.agreement,
    }
    environment = isolated_environment(request.work)
    try:
        result = run_child(
            "likewise.engine.accelerate.compile",
            task,
            request.work,
            environment=environment,
            timeout=TIMEOUT,
            progress=request.progress,
        )
    except LikewiseError:
        if texts is not None:
            shutil.rmtree(bundle.path / "engine" / texts, ignore_errors=True)
        raise
    for line in result["notes"]:
        request.report(line)
    return _entries(result["kind"], result, request)


def _entries(kind: str, result: Mapping[str, Any], request: CompileRequest) -> CompiledEngines:
    agreements = {precision: Agreement(**each) for precision, each in result["agreements"].items()}
    for precision, each in agreements.items():
        request.report(f"{precision}: {each}")
    agreed = {name: each for name, each in agreements.items() if not each.differ or name.endswith(AGREED)}
    entries = [EngineEntry(kind, precision) for precision in agreed]
    if not entries:
        first = agreements[EXACT].first
        raise EngineUnavailable(f"compiled, the model gives other predictions: {first}", remedy="it runs in torch")
    if request.options.precision == "bf16" and not {FAST, TOLERANT} & agreed.keys():
        raise EngineUnavailable(
            f"bf16 is not offered: {'; '.join(result['notes'])}",
            remedy="bundle with --precision fp32, or with more typical input texts in --calibration FILE",
        )
    measured = {f"{kind}/{precision}": each.stored for precision, each in agreed.items()}
    return CompiledEngines(tuple(entries), measured={"agreement": measured})


# --- in the child -----------------------------------------------------------------------------------------------------


def _compile_all(task: Task, work: Path) -> dict[str, object]:  # noqa: ARG001
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # would report each conversion to Intel
    bundle = open_bundle(task["bundle"])
    texts = CalibrationTexts(**task["texts"]) if task["texts"] else generated(bundle)
    recorded = _recorded(bundle, task["native"], texts.values)
    notes: list[str] = []
    if task["for_texts"] is not None:
        folder = bundle.path / "engine" / task["for_texts"]
        try:
            described = describe(recorded.loaded, recorded.recorders, bundle.signature)
            described.write(folder)
            check_tokens(described, folder, texts.values)
            compared = _compared(task, task["for_texts"], bundle, texts, recorded, [described.recorded])
            (form,) = (Form.read(path.parent) for path in folder.glob(f"*/{METADATA}"))
            check_longest(described, form.longest or 0, bundle.signature)
            if (first := Agreement(**compared["agreements"][EXACT]).first) == "":
                return compared
            notes = [f"its modules are compiled, because without transformers it gives other predictions: {first}"]
        except Exception as error:  # noqa: BLE001  the libraries accept more than this engine
            why = error.cause if isinstance(error, LikewiseError) else repr(error)[:300]
            notes = [f"its modules are compiled in transformers, because {why}"]
        shutil.rmtree(folder, ignore_errors=True)
    compared = _compared(task, task["kind"], bundle, texts, recorded, recorded.recorders)
    return {**compared, "notes": [*notes, *compared["notes"]]}


def _compared(
    task: Task,
    kind: str,
    bundle: Bundle,
    texts: CalibrationTexts,
    recorded: _Recorded,
    modules: Sequence[Recorder | Whole],
) -> dict[str, Any]:
    """Convert `modules` into `engine/KIND/`, and compare that engine's predictions with the recorded ones."""
    items, expected = recorded.items, recorded.results
    failed = sum(isinstance(each, Failed) for each in expected)
    source = f"{len(items)} rows of {texts.source}" + (f", {failed} of which the model refuses" if failed else "")
    forms, notes = _converted(modules, bundle.path / "engine" / kind, texts, source, bf16=task["bf16"])
    if not forms:
        raise EngineUnavailable("; ".join(notes) or "the model loads no module", remedy="it runs in torch")
    agreements = {}
    completed(CONVERTED)
    for precision in _precisions(forms):
        tolerance = Tolerance() if precision == EXACT else Tolerance(task["tolerance"], COSINE)
        found, covered = predicted(bundle, EngineEntry(kind, precision), items)
        agreements[precision] = agreement(found, expected, tolerance, source).stored
    notes += covered
    if task["agreement"] is not None and not agreements[EXACT]["differ"]:
        share, every = task["agreement"] / 100, _items(bundle, texts.values, like=items[0])
        try:
            proved = add_cascade(bundle, kind, every, share, texts.source)
            agreements = {f"{task['agreement']:g}{AGREED}": proved.stored, **agreements}
        except Exception as error:  # noqa: BLE001  the other engines are complete
            notes.append(
                error.cause if isinstance(error, LikewiseError) else f"no engine for --agreement: {error!r:.300}"
            )
    return {"kind": kind, "notes": notes, "agreements": agreements}


def _converted(
    recorders: Sequence[Recorder | Whole], folder: Path, texts: CalibrationTexts, source: str, *, bf16: bool
) -> tuple[list[Form], list[str]]:
    """The forms of the modules that could be converted, and a note on each module."""
    forms, notes = list[Form](), list[str]()
    by_name: dict[str, Recorder | Whole] = {}
    for each in recorders:
        if each.name is None:
            notes.append(f"{type(each.module).__name__} is not compiled: the model did not call it")
        elif (same := by_name.setdefault(each.name, each)) is not each:  # another instance with the same weights
            same.calls = [*same.calls, *each.calls]  # type: ignore[misc]  # only recorders can be twice
    for name, recorder in by_name.items():
        try:
            made = convert_module(recorder, folder / name, bf16=bf16, factor=texts.factor, source=source)
        except Exception as error:  # noqa: BLE001  of the runtime, or of the module on other inputs
            shutil.rmtree(folder / name, ignore_errors=True)
            what = f"{type(recorder.module).__name__} is not compiled: {type(error).__name__}: {str(error)[:300]}"
            notes.append(error.cause if isinstance(error, LikewiseError) else what)
            continue
        forms.append(made.form)
        notes.append(made.note)
    return forms, notes


def _precisions(forms: Sequence[Form]) -> list[str]:
    """The precisions of the engine: the faster first."""
    fast = [form for form in forms if form.fast]
    if not fast:
        return [EXACT]
    return [TOLERANT if any(form.vectors for form in fast) else FAST, EXACT]


@dataclass(frozen=True)
class _Recorded:
    """Items, their predictions by the original, one after the other, and what its modules were called with.

    loaded: the `mlflow.pyfunc.PyFuncModel`.
    """

    items: Sequence[Item]
    results: Sequence[Result]
    recorders: Sequence[Recorder]
    loaded: Any


def _recorded(bundle: Bundle, native: str, texts: Sequence[str]) -> _Recorded:
    """Predict the example and `texts` with the engine `native`."""
    example = read_example(bundle.model_path)
    rows = rows_of(example, bundle.signature, texts)
    items: list[Item] = list(rows) if bundle.manifest.row_wise else _requests(rows)
    if not items and example is not None:  # of a form that rows cannot have
        items = [Request(example.table, example.params)]
    if not items:
        raise EngineUnavailable(
            "the model has no example to try it on", remedy="log it with an input_example, and bundle it again"
        )
    recorders: list[Recorder] = []

    def record(module: Any) -> None:
        if any(True for _ in module.parameters()):
            recorders.append(Recorder(module))

    with watching(record):
        engine: Any = kind_of(native).open(bundle, EngineEntry(native, "native"))
        loaded = engine.model
        try:
            results = _one_by_one(engine, items)
            if rows and bundle.manifest.row_wise and _all_fail(results):  # not one prediction per row
                items = _requests(rows)
                results = _one_by_one(engine, items)
        finally:
            engine.close()
    for recorder in recorders:
        recorder.stop()
    if (error := _all_fail(results)) is not None:
        raise EngineUnavailable(f"the model fails for all texts: {error.cause}", remedy=error.remedy)
    return _Recorded(items[: len(results)], results, recorders, loaded)


def _items(bundle: Bundle, texts: Sequence[str], *, like: Item) -> list[Item]:
    """One item for each text, and no others, of the type of `like`."""
    rows = rows_of(read_example(bundle.model_path), bundle.signature, texts)[-len(texts) :]
    return list(rows) if isinstance(like, Row) else _requests(rows)


def _requests(rows: Sequence[Row]) -> list[Item]:
    return [Request(Table(row.columns, [row.values]), row.params) for row in rows]


def _one_by_one(engine: Engine, items: Sequence[Item]) -> list[Result]:
    """The predictions of as many items as there is time for."""
    started = time.monotonic()
    results: list[Result] = []
    for item in items:
        results += predict_items(engine, [item])
        seconds = time.monotonic() - started
        completed(RECORDED * max(seconds / RECORDING_S, len(results) / len(items)))
        if seconds > RECORDING_S:
            break
    return results


def _all_fail(results: Sequence[Result]) -> LikewiseError | None:
    """The first error, if there is no prediction."""
    failed = [each.error for each in results if isinstance(each, Failed)]
    return failed[0] if failed and len(failed) == len(results) else None


if __name__ == "__main__":  # python -m likewise.engine.accelerate.compile TASK RESULT
    run_task(_compile_all, *sys.argv[1:])
