"""What an operation takes, by botocore's own model of the service, refused in the words that AWS uses.

botocore's validator knows types, members and lower bounds; upper bounds, patterns and enumerations are in its models,
and only the service looks at them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from likewise.targets.sagemaker.patterns import matches

Shape = Any  # botocore's


@cache
def service(name: str) -> Any:
    """botocore's model of a service."""
    return botocore.session.get_session().get_service_model(name)


def problems(params: Mapping[str, object], shape: Shape) -> str | None:
    """What is wrong with an operation's parameters, as AWS's message has it; None where nothing is."""
    broken = list(_broken(params, shape, ""))
    if broken:
        plural = "s" if len(broken) > 1 else ""
        return f"{len(broken)} validation error{plural} detected: {'; '.join(broken)}"
    report = ParamValidator().validate(params, shape)
    return report.generate_report() if report.has_errors() else None


def _broken(value: Any, shape: Shape, at: str) -> Iterator[str]:
    for constraint in _constraints(value, shape):
        shown = "" if shape.metadata.get("sensitive") or isinstance(value, bytes) else f"'{value}' "
        yield f"Value {shown}at '{at}' failed to satisfy constraint: Member must {constraint}"
    if shape.type_name == "structure" and isinstance(value, Mapping):
        yield from _broken_members(value, shape, at)
    elif shape.type_name == "list" and isinstance(value, list):
        for number, member in enumerate(value, 1):
            yield from _broken(member, shape.member, f"{at}.{number}.member")
    elif shape.type_name == "map" and isinstance(value, Mapping):
        for key, member in value.items():
            yield from _broken(key, shape.key, f"{at}.key")
            yield from _broken(member, shape.value, f"{at}.{key}.member")


def _broken_members(value: Mapping[str, Any], shape: Shape, at: str) -> Iterator[str]:
    for name in shape.required_members:
        if value.get(name) is None:
            where = _join(at, name)
            yield f"Value null at '{where}' failed to satisfy constraint: Member must not be null"
    for name, member in value.items():
        if name in shape.members and member is not None:
            yield from _broken(member, shape.members[name], _join(at, name))


def _join(at: str, name: str) -> str:
    lower = name[:1].lower() + name[1:]
    return f"{at}.{lower}" if at else lower


def _constraints(value: object, shape: Shape) -> Iterator[str]:
    kind, said = shape.type_name, shape.metadata
    if kind in ("string", "list", "map", "blob") and isinstance(value, str | bytes | list | Mapping):
        yield from _bounds(len(value), said, "have length")
    if kind in ("integer", "long", "float", "double") and isinstance(value, int | float):
        yield from _bounds(value, said, "have value")
    if isinstance(value, str):
        if said.get("enum") and value not in said["enum"]:
            yield f"satisfy enum value set: [{', '.join(said['enum'])}]"
        if (pattern := said.get("pattern")) and not matches(pattern, value):
            yield f"satisfy regular expression pattern: {pattern}"


def _bounds(size: float, said: Mapping[str, Any], what: str) -> Iterator[str]:
    if size < said.get("min", size):
        yield f"{what} greater than or equal to {said['min']}"
    if size > said.get("max", size):
        yield f"{what} less than or equal to {said['max']}"
