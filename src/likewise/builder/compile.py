"""Compiles engines for a bundle, with every installed engine kind."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace

from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.errors import EngineUnavailable, LikewiseError
from likewise.engine.engine_options import CompileOptions
from likewise.engine.kinds import CompiledEngines, CompileRequest, is_compiled


def compile_engines(bundle: Bundle, request: CompileRequest) -> CompiledEngines:
    """Compile every engine kind that supports the model of the unfinished `bundle`; kinds that fail are reported.

    Raises a kind's `failure`.  If the options require bf16 and no kind offers it, raises the first kind's error.
    """
    compiled, errors = [], list[LikewiseError]()
    for kind in request.model.kinds():
        if kind.runs_code and not request.code:
            continue
        try:
            compiled.append(kind.compile(bundle, replace(request, work=request.work / kind.name)))
        except LikewiseError as error:
            shutil.rmtree(bundle.path / "engine" / kind.name, ignore_errors=True)
            errors.append(error)
    for each in compiled:
        if each.failure is not None:
            raise each.failure
    entries = tuple(entry for each in compiled for entry in each.entries)
    errors += _unused_options(entries, errors, request.options, texts=request.texts is not None)
    if errors and request.options.precision == "bf16" and not any(e.precision.startswith("bf16") for e in entries):
        raise errors[0]
    for each_error in errors:
        request.report(f"no compiled engine: {each_error.cause} ({each_error.remedy})")
    measured = {name: value for each in compiled for name, value in each.measured.items()}
    if errors:
        measured["not_compiled"] = [error.cause for error in errors]
    return CompiledEngines(entries, next((each.texts for each in compiled if each.texts), ()), measured=measured)


def _unused_options(
    entries: Sequence[EngineEntry], errors: Sequence[LikewiseError], options: CompileOptions, *, texts: bool
) -> list[LikewiseError]:
    """Errors for options that have no effect on this model."""
    unused = list[LikewiseError]()
    if not entries and not errors and (texts or options.precision):
        remedy = "bundle it without --precision and --calibration; --accelerate compiles what its own code loads"
        unused.append(EngineUnavailable("the model declares no classifier to compile", remedy=remedy))
    if options.agreement is not None and entries and not is_compiled(entries):
        remedy = "bundle it without --agreement"
        unused.append(EngineUnavailable("--agreement has no effect on pipelines and ONNX models", remedy=remedy))
    return unused
