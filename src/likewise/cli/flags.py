"""Commands whose flags are the fields of dataclasses of options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from inspect import Parameter
from typing import Annotated, Any, get_origin, get_type_hints

import typer


def flag(spelling: str, text: str, **limits: float) -> Any:
    """For `Annotated`: `--output -o DIR` with its help; limits: min, max."""
    words = spelling.split()
    names = [word for word in words if word.startswith("-")]
    metavar = " ".join(words[len(names) :]) or None
    return typer.Option(*names, metavar=metavar, help=text, **limits)  # type: ignore[arg-type]


def argument(metavar: str, text: str) -> Any:
    """For `Annotated`: a word of the command without a flag."""
    return typer.Argument(metavar=metavar, help=text)


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """`command` for typer: instead of each parameter that is a dataclass, the flags that its fields have.

    See `likewise.core.option_fields.option`.  A field has its default where it has no flag, and where the command
    declares the flag anew, as a parameter GROUP_FIELD.
    """
    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command).parameters
    groups: dict[str, dict[str, Field[Any]]] = {}
    parameters: list[Parameter] = []
    for name, parameter in own.items():
        if not is_dataclass(hints[name]):
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name]))
            continue
        flagged = {f"{name}_{each.name}": each for each in fields(hints[name]) if each.metadata.get("flag")}
        groups[name] = {dest: each for dest, each in flagged.items() if dest not in own}
        types = get_type_hints(hints[name])
        parameters += [_parameter(dest, each, types[each.name]) for dest, each in groups[name].items()]

    @wraps(command)
    def run(**given: Any) -> None:
        for name, flagged in groups.items():
            values = {each.name: _value(each, given.pop(dest)) for dest, each in flagged.items()}
            given[name] = hints[name](**{field: value for field, value in values.items() if value is not None})
        command(**given)

    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameter(name: str, field: Field[Any], kind: Any) -> Parameter:
    about, default = field.metadata, None if field.default is MISSING else field.default
    if "unit" in about:
        kind, default = float, field.default / about["unit"]
    elif get_origin(kind) in (Mapping, tuple):
        kind, default = list[str] | None, None
    limits = {key: about[key] for key in ("min", "max") if key in about}
    annotation = Annotated[kind, flag(about["flag"], about["help"], **limits)]
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _value(field: Field[Any], given: Any) -> Any:
    """The field's value; None for its default."""
    if "unit" in field.metadata:
        return round(given * field.metadata["unit"])
    parse = field.metadata.get("parse")
    if parse is None:
        return given
    return parse(given) if given else None
