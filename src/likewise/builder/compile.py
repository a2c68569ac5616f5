"""The engines that can be compiled for a bundle: every installed kind is asked."""

from __future__ import annotations

import shutil
from dataclasses import replace

from likewise.bundles.open import Bundle
from likewise.core.errors import EngineUnavailable, LikewiseError
from likewise.engine.kinds import CompiledEngines, CompileRequest


def compile_engines(bundle: Bundle, request: CompileRequest) -> CompiledEngines:
    """Compile every kind of engine that takes the model of the unfinished `bundle`; a kind that fails is reported.

    Raises a kind's `failure`, and what the first one raised where the options ask for bf16 and then none offers it.
    """
    made, refused = [], list[LikewiseError]()
    for kind in request.model.kinds():
        try:
            made.append(kind.compile(bundle, replace(request, work=request.work / kind.name)))
        except LikewiseError as raised:
            shutil.rmtree(bundle.path / "engine" / kind.name, ignore_errors=True)
            refused.append(raised)
    for each in made:
        if each.failure is not None:
            raise each.failure
    entries = tuple(entry for each in made for entry in each.entries)
    if not entries and not refused and (request.texts or request.options.precision):
        cause = "the model declares no classifier to compile"
        refused.append(EngineUnavailable(cause, remedy="bundle it without a precision"))
    if refused and request.options.precision == "bf16" and not any(e.precision.startswith("bf16") for e in entries):
        raise refused[0]
    for error in refused:
        request.report(f"no compiled engine: {error.cause} ({error.remedy})")
    return CompiledEngines(entries, next((one.texts for one in made if one.texts), ()))
