"""Options as dataclasses: parsed from `KEY=VALUE`, checked against the fields' types, unknown keys rejected."""

from __future__ import annotations

import json
import types
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, Field, asdict, field, fields
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from likewise.core.errors import WrongUsage

T = TypeVar("T")
_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def option(default: Any, text: str, flag: str = "", **settings: Any) -> Any:
    """A field of an options dataclass.  text: its help text, on the command line, in Python and in the docs.

    default: `dict` or `list` for an empty one.  flag: its names and metavar, such as `--output -o DIR`; empty for no
    flag.  settings: min, max; parse: converts the strings of a repeatable flag to the value; unit: the field's value
    for 1 on the command line, to which min then applies; least: the minimum of a field with a unit, else 1, or min if
    that is smaller.
    """
    initial: dict[str, Any] = {"default_factory" if default in (dict, list) else "default": default}
    return field(**initial, metadata={"help": text, "flag": flag, **settings})


def coerce(kind: type[T], given: Mapping[str, object]) -> T:
    """An instance of the options class `kind` from `given`: values of the fields' types, or strings to parse.

    Strings for nested values are JSON, or words separated by commas for a tuple. Raises WrongUsage for an unknown key,
    suggesting the closest one, and for a value of the wrong type.
    """
    hints, known = get_type_hints(kind), {each.name for each in fields(kind)}  # type: ignore[arg-type]
    refuse_unknown(given, known)
    values = {key: _value(key, value, hints[key]) for key, value in given.items()}
    try:
        options = kind(**values)
    except TypeError as error:  # one without a default is missing
        raise WrongUsage(str(error), remedy="set it with -C KEY=VALUE") from error
    check_ranges(options)
    return options


def check_ranges(options: Any) -> None:
    """Raise WrongUsage for the first number outside the range of its field."""
    for each in fields(options):
        value, settings = getattr(options, each.name), each.metadata
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        low, high = settings.get("min"), settings.get("max")
        low = settings.get("least", min(1, low) if low is not None and "unit" in settings else low)
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            allowed = f"of at least {low}" if high is None else f"from {low} to {high}"
            raise WrongUsage(f"option {each.name!r} is {value}", remedy=f"use a number {allowed}")


def refuse_unknown(given: Iterable[str], known: Collection[str]) -> None:
    """Raise WrongUsage for the first name that is not in `known`, suggesting the closest one."""
    for key in given:
        if key not in known:
            remedy = nearest(key, known).strip() or f"valid options: {', '.join(sorted(known))}"
            raise WrongUsage(f"unknown option {key!r}", remedy=remedy)


def nearest(name: str, known: Collection[str]) -> str:
    """The start of a remedy, suggesting the closest of the `known` names; empty if none is similar."""
    matches = get_close_matches(name, known, 1)
    return f"did you mean {matches[0]!r}? " if matches else ""


def as_json(options: Any) -> dict[str, Any]:
    """All options as a JSON object; `coerce` reverses it."""
    return {key: _as_json(value) for key, value in asdict(options).items()}


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def described(kind: type) -> list[tuple[str, str, str]]:
    """(name, default, help text) of each option."""
    return [(each.name, _default(each), str(each.metadata.get("help", ""))) for each in fields(kind)]


def parse_pairs(flag: str, form: str, example: str, pairs: Iterable[str], *, last: bool = False) -> dict[str, str]:
    """Parse the `KEY=VALUE` pairs of a repeated `flag` to a mapping.

    form, example: for the message of the WrongUsage that an invalid or repeated pair raises.
    last: split at the last `=`, with neither part empty; otherwise split at the first.
    """
    mapping: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.rpartition("=") if last else pair.partition("=")
        if not (key and sign) or (last and not value) or key in mapping:
            cause = f"{flag} {pair!r} does not have the form {form}, or its {form.partition('=')[0]} is repeated"
            raise WrongUsage(cause, remedy=f"for example: {flag} {example}")
        mapping[key] = value
    return mapping


parse_config = partial(parse_pairs, "-C", "KEY=VALUE", "num_replicas=2")


def _default(each: Field[Any]) -> str:
    if each.default is not MISSING:
        return "" if each.default in (None, ()) else str(each.default)
    return "" if each.default_factory is MISSING else json.dumps(each.default_factory())


def _value(key: str, value: object, kind: Any) -> object:
    accepted = [each for each in _alternatives(kind) if each is not type(None)]
    if value is None and type(None) in _alternatives(kind):
        return None
    for each in accepted:
        try:
            return _one(value, each)
        except (ValueError, TypeError):
            continue
    names = " or ".join(_name(each) for each in accepted)
    raise WrongUsage(
        f"option {key!r} is {value!r}, which is not a valid {names}", remedy=f"-C {key}={_name(accepted[0]).upper()}"
    )


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _one(value: object, kind: Any) -> object:
    """`value` as a `kind`; raises ValueError or TypeError if it cannot be converted."""
    origin = get_origin(kind) or kind
    if origin is Literal:
        return _member(value, get_args(kind))
    if isinstance(value, str) and origin is not str:
        return _from_text(value, origin)
    if isinstance(value, list) and origin is tuple:
        return tuple(value)
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = {Mapping: dict, Path: Path}.get(origin, origin)
    if not isinstance(value, expected) or (isinstance(value, bool) and origin is not bool):
        raise TypeError(value)
    return value


def _from_text(text: str, origin: Any) -> object:
    if origin is bool:
        if text.lower() not in _WORDS:
            raise ValueError(text)
        return _WORDS[text.lower()]
    if origin in (int, float, Path):
        if not text:
            raise ValueError(text)  # Path("") is the current folder
        return origin(text)
    if origin is tuple and not text.startswith("["):
        return tuple(text.split(","))
    parsed = json.loads(text)
    if not isinstance(parsed, dict if origin in (dict, Mapping) else list if origin in (list, tuple) else origin):
        raise ValueError(text)
    return tuple(parsed) if origin is tuple else parsed


def _member(value: object, members: tuple[object, ...]) -> object:
    matches = [member for member in members if str(member) == str(value)]
    if not matches:
        raise ValueError(value)
    return matches[0]


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    origin = get_origin(kind) or kind
    return {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path"}.get(
        origin, "JSON object" if origin in (dict, Mapping) else "JSON list"
    )
