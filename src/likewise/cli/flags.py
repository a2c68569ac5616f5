"""Builds command-line flags from the fields of option dataclasses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from inspect import Parameter
from itertools import pairwise
from typing import Annotated, Any, get_origin, get_type_hints

import typer

from likewise.core.errors import WrongUsage
from likewise.core.stdout import reserve_stdout


def flag(spelling: str, text: str, *, complete: Callable[..., list[str]] | None = None, **limits: float) -> Any:
    """A typer option for `Annotated`. spelling: `--output -o DIR`; text: its help; limits: min, max.

    complete: see `likewise.cli.completion`.
    """
    words = spelling.split()
    names = [word for word in words if word.startswith("-")]
    metavar = " ".join(words[len(names) :]) or None
    return typer.Option(*names, metavar=metavar, help=text, autocompletion=complete, **limits)  # type: ignore[call-overload]


def argument(metavar: str, text: str, *, complete: Callable[..., list[str]] | None = None) -> Any:
    """A typer positional argument for `Annotated`; text: its help; complete: see `likewise.cli.completion`."""
    return typer.Argument(metavar=metavar, help=text, autocompletion=complete)


def refuse_empty(words: Sequence[str]) -> None:
    """Raise WrongUsage for an empty word of a command line, such as an unset variable of a shell."""
    for before, word in pairwise(words):
        if not word or (word.startswith("--") and word.endswith("=") and word.count("=") == 1):
            after = word[:-1] or before
            raise WrongUsage(f"the value after {after!r} is empty", remedy="give it a value, or omit it")


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap `command` for typer: each dataclass parameter is replaced by the flags of its fields.

    See `likewise.core.option_fields.option`.  A field keeps its default if it has no flag, or if the command itself
    declares a parameter named GROUP_FIELD in its place.  While the command runs, stdout is reserved for its results.
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
    def run(**arguments: Any) -> None:
        reserve_stdout()
        for name, flagged in groups.items():
            values = {each.name: _value(each, arguments.pop(dest)) for dest, each in flagged.items()}
            arguments[name] = hints[name](**{field: value for field, value in values.items() if value is not None})
        command(**arguments)

    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameter(name: str, field: Field[Any], kind: Any) -> Parameter:
    """The keyword-only parameter `name` that typer turns into the field's flag; kind: the field's type."""
    metadata, default = field.metadata, None if field.default is MISSING else field.default
    if "unit" in metadata:
        kind, default = float, field.default / metadata["unit"]
    elif get_origin(kind) in (Mapping, tuple):
        kind, default = list[str] | None, None
    elif "parse" in metadata:
        kind = str | None
    limits = {key: metadata[key] for key in ("min", "max") if key in metadata}
    annotation = Annotated[kind, flag(metadata["flag"], metadata["help"], **limits)]
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _value(field: Field[Any], argument: Any) -> Any:
    """The field's value for the parsed command-line `argument`; None stands for the field's default."""
    if "unit" in field.metadata:
        return round(argument * field.metadata["unit"])
    parse = field.metadata.get("parse")
    if parse is None:
        return argument
    return None if argument is None or argument == [] else parse(argument)
