"""What an operation takes, by botocore's own model of the service, refused in the words that AWS uses."""

from __future__ import annotations

from collections.abc import Mapping

from likewise.targets.sagemaker.shapes import NUMBERS, Broken, Shape, ShapePath, broken, library_report

_MUST = {
    "required": "not be null",
    "min": "have {what} greater than or equal to {limit}",
    "max": "have {what} less than or equal to {limit}",
    "enum": "satisfy enum value set: {limit}",
    "pattern": "satisfy regular expression pattern: {limit}",
}


def problems(params: Mapping[str, object], shape: Shape) -> str | None:
    """What is wrong with an operation's parameters, as AWS's message has it; None where nothing is."""
    said = [_said(each) for each in broken(params, shape)]
    if said:
        plural = "s" if len(said) > 1 else ""
        return f"{len(said)} validation error{plural} detected: {'; '.join(said)}"
    return library_report(params, shape) or None


def _said(each: Broken) -> str:
    hidden = each.shape.metadata.get("sensitive") or isinstance(each.value, bytes)
    shown = "null " if each.rule == "required" else "" if hidden else f"'{each.value}' "
    limit = f"[{', '.join(each.limit)}]" if each.rule == "enum" else each.limit
    must = _MUST[each.rule].format(limit=limit, what="value" if each.shape.type_name in NUMBERS else "length")
    where = ".".join(_step(at) for at in each.path)
    return f"Value {shown}at '{where}' failed to satisfy constraint: Member must {must}"


def _step(at: ShapePath) -> str:
    if at.kind == "key":
        return "key"
    if at.kind == "member":
        return f"{at.name[:1].lower()}{at.name[1:]}"
    return f"{at.name + 1 if at.kind == 'item' else at.name}.member"
