"""Validates an operation's parameters against botocore's model of the service, with AWS's error messages."""

from __future__ import annotations

from collections.abc import Mapping

from likewise.targets.sagemaker.shapes import NUMBERS, Shape, ShapePath, Violation, botocore_report, violations

_CONSTRAINTS = {
    "required": "not be null",
    "min": "have {what} greater than or equal to {limit}",
    "max": "have {what} less than or equal to {limit}",
    "enum": "satisfy enum value set: {limit}",
    "pattern": "satisfy regular expression pattern: {limit}",
}


def problems(params: Mapping[str, object], shape: Shape) -> str | None:
    """AWS's error message for the parameters, None if they are valid."""
    messages = [_message(each) for each in violations(params, shape)]
    if messages:
        plural = "s" if len(messages) > 1 else ""
        return f"{len(messages)} validation error{plural} detected: {'; '.join(messages)}"
    return botocore_report(params, shape) or None


def _message(each: Violation) -> str:
    hidden = each.shape.metadata.get("sensitive") or isinstance(each.value, bytes)
    shown = "null " if each.rule == "required" else "" if hidden else f"'{each.value}' "
    limit = f"[{', '.join(each.limit)}]" if each.rule == "enum" else each.limit
    constraint = _CONSTRAINTS[each.rule].format(
        limit=limit, what="value" if each.shape.type_name in NUMBERS else "length"
    )
    where = ".".join(_path_element(at) for at in each.path)
    return f"Value {shown}at '{where}' failed to satisfy constraint: Member must {constraint}"


def _path_element(at: ShapePath) -> str:
    if at.kind == "key":
        return "key"
    if at.kind == "member":
        return f"{at.name[:1].lower()}{at.name[1:]}"
    return f"{at.name + 1 if at.kind == 'item' else at.name}.member"
