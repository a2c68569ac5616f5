"""Validates a request against botocore's model of the operation before it is sent: types, members, enums, limits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from likewise.core.errors import WrongUsage
from likewise.targets.sagemaker.shapes import NUMBERS, Violation, botocore_report, service_model, violations

_PARAMETER = re.compile(r"(?P<head>[^:]*?parameter(?: in)? )(?P<path>[\w.\[\]]+)")


def check(service: str, operation: str, request: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Raise WrongUsage if `request` is not valid; the error names the option that the invalid value came from.

    origins: the option for each path in the request, without list positions.
    """
    shape = service_model(service).operation_model(operation).input_shape
    documented = f"for its format, run: aws {service} {re.sub('(?<!^)(?=[A-Z])', '-', operation).lower()} help"
    if report := botocore_report(request, shape):
        line = _PARAMETER.sub(lambda match: match["head"] + option_of(match["path"], origins), report.splitlines()[0])
        raise WrongUsage(line, remedy=documented)
    for first in violations(request, shape):
        problem, remedy = _described(first)
        path = "".join(f"[{at.name}]" if at.kind == "item" else f".{at.name}" for at in first.path).lstrip(".")
        raise WrongUsage(f"{option_of(path, origins)} {problem}", remedy=remedy or documented)


def option_of(path: str, origins: Mapping[str, str]) -> str:
    """The option that a path in a request came from, followed by the rest of the path below the option's value."""
    plain = re.sub(r"\[\d+\]", "", path)
    for known in sorted(origins, key=len, reverse=True):
        if plain == known or plain.startswith(f"{known}."):
            return origins[known] + plain[len(known) :]
    return plain


def _described(each: Violation) -> tuple[str, str]:
    """The problem, and a remedy; empty if the operation's documentation is the best remedy."""
    value, limit = each.value, each.limit
    if each.rule == "enum":
        near = get_close_matches(value, limit, 1, 0.3)
        few = ", ".join(limit[:12]) + (", …" if len(limit) > 12 else "")
        newer = "; for newer values, run: pip install -U boto3" if len(limit) > 12 else ""
        suggestion = f"did you mean {near[0]}?" if near else "use one of them"
        return f"is {value!r}, which is not one of: {few}", f"{suggestion}{newer}"
    if each.rule == "pattern":
        return f"is {value!r}, which does not match AWS's pattern {limit}", ""
    if each.shape.type_name in NUMBERS:
        return (
            f"is {value}, and AWS allows at most {limit}",
            f"use a number from {each.shape.metadata.get('min')} to {limit}",
        )
    return f"has length {len(value)}, and AWS allows at most {limit}", ""
