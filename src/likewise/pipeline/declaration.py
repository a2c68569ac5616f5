"""A pipeline as data, which is logged with the model and loaded without running the model's code."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from likewise.core.errors import CodeNotTrusted, ModelInvalid, WrongUsage
from likewise.pipeline.steps import Cache, Classify, DetectLanguage, Respond, Step

FORMAT = 1
BUILT_IN: Mapping[str, type[Step]] = {
    "cache": Cache,
    "detect_language": DetectLanguage,
    "classify": Classify,
    "respond": Respond,
}
_NAMES = {kind: name for name, kind in BUILT_IN.items()}


_RANGES: Mapping[tuple[str, str], tuple[type[float], float, float]] = {  # type, minimum and maximum, both inclusive
    ("cache", "size"): (int, 0, 1_000_000_000),
    ("detect_language", "least"): (float, 0, 1),
    ("classify", "max_length"): (int, 2, 1_000_000),  # tokens, including the two special tokens of every text
}
_TEXTS = (("detect_language", "default"), ("classify", "model"))


def is_built_in(step: Step) -> bool:
    """Whether the step is one of Likewise's own, rather than a subclass."""
    return type(step) in _NAMES


def declare_step(step: Step) -> dict[str, object]:
    """`{"step": name, field: value, …}`; the name of a custom step is `module:Class`."""
    kind = type(step)
    if "__dataclass_fields__" not in vars(kind):
        raise WrongUsage(f"the step {kind.__name__} is not a dataclass", remedy="decorate it with @dataclass")
    name = _NAMES.get(kind) or f"{module_name(kind)}:{kind.__qualname__}"
    return {"step": name} | {each.name: getattr(step, each.name) for each in fields(cast(Any, step)) if each.init}


def build_step(declared: object, *, allow_code: bool) -> Step:
    """Create the step that `declared`, a JSON object, describes.

    Raises CodeNotTrusted for a custom step unless `allow_code`, ModelInvalid with the field's name if the declaration
    is not a mapping or a value is invalid.
    """
    if not isinstance(declared, Mapping):
        raise _invalid(f"a pipeline's step must be a mapping, got {declared!r}")
    name = declared.get("step")
    if not isinstance(name, str):
        raise _invalid(f"a pipeline's step must have a name under 'step', got {name!r}")
    for key, value in declared.items():
        if problem := not_json(value) or _out_of_range(name, key, value):
            raise _invalid(f"step {name!r}: {key} {problem}")
    kind = BUILT_IN.get(name) or _imported(name, allow_code=allow_code)
    try:
        return kind(**{key: value for key, value in declared.items() if key != "step"})
    except TypeError as error:
        raise _invalid(f"step {name!r}: {error}") from error


def not_json(value: object) -> str | None:
    """Why `value` is not JSON, as text to follow its name (`must be JSON, got a date`); None if it is."""
    if isinstance(value, Mapping):
        wrong = next((f"must be JSON, got the key {key!r}" for key in value if not isinstance(key, str)), None)
        return wrong or next(filter(None, map(not_json, value.values())), None)
    if isinstance(value, list):
        return next(filter(None, map(not_json, value)), None)
    if isinstance(value, float) and not math.isfinite(value):
        return f"must be JSON, got {value}"
    if value is None or isinstance(value, str | int | float):
        return None
    return f"must be JSON, got a {type(value).__name__}: {value!s:.100}"


def _out_of_range(step: str, key: object, value: object) -> str | None:
    if allowed := _RANGES.get((step, str(key))):
        kind, least, most = allowed
        if not isinstance(value, (int, kind)) or isinstance(value, bool) or not least <= value <= most:
            number = "a whole number" if kind is int else "a number"
            return f"must be {number} from {least} to {most}, got {value!r}"
    if (step, key) in _TEXTS and not (isinstance(value, str) and value):
        return f"must be a non-empty string, got {value!r}"
    return None


def _invalid(problem: str) -> ModelInvalid:
    return ModelInvalid(problem, remedy="log the pipeline again with this version")


def _imported(name: str, *, allow_code: bool) -> type[Step]:
    module, _, qualified = name.partition(":")
    if not qualified:
        raise ModelInvalid(f"unknown step {name!r}", remedy=f"use a built-in step: {', '.join(BUILT_IN)}")
    if not allow_code:
        raise CodeNotTrusted(f"the step {name!r} is the model's own code", remedy="pass --trust if you trust the model")
    kind: object = importlib.import_module(module)
    for part in qualified.split("."):
        kind = getattr(kind, part, None)
    if not (isinstance(kind, type) and issubclass(kind, Step)):
        raise ModelInvalid(f"{name!r} is not a Step", remedy="log the pipeline again")
    return kind


def module_name(kind: type) -> str:
    """The module from which the class can be imported later: for a script, the module named after its file."""
    if kind.__module__ != "__main__":
        return kind.__module__
    return _file(kind).stem


def code_path(kind: type) -> Path:
    """The file that must be logged with the model; for a class in a package, the package's top folder."""
    top = kind.__module__.partition(".")[0]
    file = Path(getattr(sys.modules[top], "__file__", None) or _file(kind))
    return file.parent if file.name == "__init__.py" else file


def _file(kind: type) -> Path:
    file = getattr(sys.modules[kind.__module__], "__file__", None)
    if file is None:
        raise WrongUsage(
            f"the step {kind.__name__} was defined interactively and has no source file",
            remedy="define it in a module and import it",
        )
    return Path(file)
