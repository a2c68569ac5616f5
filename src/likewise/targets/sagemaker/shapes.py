"""A value against botocore's own model of it.

botocore's validator knows types, members and lower bounds; upper bounds, patterns and enumerations are in its models,
and only the service looks at them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

from likewise.core.extras import need
from likewise.targets.sagemaker.patterns import matches

Shape = Any  # botocore's
SIZED = ("string", "list", "map", "blob")
NUMBERS = ("integer", "long", "float", "double")


class ShapePath(NamedTuple):
    """One step on the way into a value: a structure's member, a list's item, a map's key, or the value of a key."""

    kind: Literal["member", "item", "key", "value"]
    name: Any


class Broken(NamedTuple):
    """A rule of the model that a part of a value breaks; `limit` as the model has it."""

    path: tuple[ShapePath, ...]
    value: Any
    shape: Shape
    rule: Literal["required", "min", "max", "enum", "pattern"]
    limit: Any = None


@cache
def service_model(name: str) -> Any:
    """botocore's model of a service; seconds, for SageMaker's."""
    return need("botocore.session", extra="aws").get_session().get_service_model(name)


def library_report(value: object, shape: Shape) -> str:
    """What botocore's validator finds, a line each; empty for nothing."""
    report = need("botocore.validate", extra="aws").ParamValidator().validate(value, shape)
    return str(report.generate_report()) if report.has_errors() else ""


def broken(value: Any, shape: Shape, path: tuple[ShapePath, ...] = ()) -> Iterator[Broken]:
    """Every rule that `value` breaks, from the outside in; what has another type than the model's is passed over."""
    for rule, limit in _rules(value, shape):
        yield Broken(path, value, shape, rule, limit)
    kind = shape.type_name
    if kind == "structure" and isinstance(value, Mapping):
        yield from _broken_members(value, shape, path)
    elif kind == "list" and isinstance(value, list):
        for number, item in enumerate(value):
            yield from broken(item, shape.member, (*path, ShapePath("item", number)))
    elif kind == "map" and isinstance(value, Mapping):
        for key, held in value.items():
            yield from broken(key, shape.key, (*path, ShapePath("key", key)))
            yield from broken(held, shape.value, (*path, ShapePath("value", key)))


def _broken_members(value: Mapping[str, Any], shape: Shape, path: tuple[ShapePath, ...]) -> Iterator[Broken]:
    for name in shape.required_members:
        if value.get(name) is None:
            yield Broken((*path, ShapePath("member", name)), None, shape, "required")
    for name, member in value.items():
        if name in shape.members and member is not None:
            yield from broken(member, shape.members[name], (*path, ShapePath("member", name)))


def _rules(value: Any, shape: Shape) -> Iterator[tuple[Any, Any]]:
    """The names and limits of what is wrong with the value itself."""
    said: Mapping[str, Any] = shape.metadata
    size: float | None = None
    if shape.type_name in SIZED and isinstance(value, str | bytes | list | Mapping):
        size = len(value)
    elif shape.type_name in NUMBERS and isinstance(value, int | float):
        size = value
    if size is not None and size < said.get("min", size):
        yield "min", said["min"]
    if size is not None and size > said.get("max", size):
        yield "max", said["max"]
    if isinstance(value, str) and said.get("enum") and value not in said["enum"]:
        yield "enum", said["enum"]
    if isinstance(value, str) and said.get("pattern") and not matches(said["pattern"], value):
        yield "pattern", said["pattern"]
