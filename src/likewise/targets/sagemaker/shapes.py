"""Validates a value against its shape in botocore's service model.

botocore's validator checks types, members and lower bounds; its models also contain upper bounds, patterns and
enumerations, which only the service checks.
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
    """One element of a path in a value: a structure's member, a list's item, a map's key, or the value of a key."""

    kind: Literal["member", "item", "key", "value"]
    name: Any


class Violation(NamedTuple):
    """A rule of the model that the value at `path` violates; `limit` as in the model."""

    path: tuple[ShapePath, ...]
    value: Any
    shape: Shape
    rule: Literal["required", "min", "max", "enum", "pattern"]
    limit: Any = None


@cache
def service_model(name: str) -> Any:
    """botocore's model of a service; loading SageMaker's takes seconds."""
    return need("botocore.session", extra="aws").get_session().get_service_model(name)


def botocore_report(value: object, shape: Shape) -> str:
    """The errors of botocore's validator, one per line; empty if there are none."""
    report = need("botocore.validate", extra="aws").ParamValidator().validate(value, shape)
    return str(report.generate_report()) if report.has_errors() else ""


def violations(value: Any, shape: Shape, path: tuple[ShapePath, ...] = ()) -> Iterator[Violation]:
    """All violations in `value`, from the outside in; values of a wrong type are skipped."""
    for rule, limit in _rules(value, shape):
        yield Violation(path, value, shape, rule, limit)
    kind = shape.type_name
    if kind == "structure" and isinstance(value, Mapping):
        yield from _member_violations(value, shape, path)
    elif kind == "list" and isinstance(value, list):
        for number, item in enumerate(value):
            yield from violations(item, shape.member, (*path, ShapePath("item", number)))
    elif kind == "map" and isinstance(value, Mapping):
        for key, item in value.items():
            yield from violations(key, shape.key, (*path, ShapePath("key", key)))
            yield from violations(item, shape.value, (*path, ShapePath("value", key)))


def _member_violations(value: Mapping[str, Any], shape: Shape, path: tuple[ShapePath, ...]) -> Iterator[Violation]:
    for name in shape.required_members:
        if value.get(name) is None:
            yield Violation((*path, ShapePath("member", name)), None, shape, "required")
    for name, member in value.items():
        if name in shape.members and member is not None:
            yield from violations(member, shape.members[name], (*path, ShapePath("member", name)))


def _rules(value: Any, shape: Shape) -> Iterator[tuple[Any, Any]]:
    """The names and limits of the rules that the value itself violates."""
    limits: Mapping[str, Any] = shape.metadata
    size: float | None = None
    if shape.type_name in SIZED and isinstance(value, str | bytes | list | Mapping):
        size = len(value)
    elif shape.type_name in NUMBERS and isinstance(value, int | float):
        size = value
    if size is not None and size < limits.get("min", size):
        yield "min", limits["min"]
    if size is not None and size > limits.get("max", size):
        yield "max", limits["max"]
    if isinstance(value, str) and limits.get("enum") and value not in limits["enum"]:
        yield "enum", limits["enum"]
    if isinstance(value, str) and limits.get("pattern") and not matches(limits["pattern"], value):
        yield "pattern", limits["pattern"]
