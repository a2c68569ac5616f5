"""A request against botocore's own model of the operation, before anybody is asked: types, members, enums, limits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from likewise.core.errors import WrongUsage
from likewise.targets.sagemaker.shapes import NUMBERS, Broken, broken, library_report, service_model

_NAMED = re.compile(r"(?P<head>[^:]*?parameter(?: in)? )(?P<path>[\w.\[\]]+)")


def check(service: str, operation: str, request: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Raise WrongUsage for what is wrong with `request`, by the names of the options that it was made of.

    origins: the option of each path into the request, list positions left out.
    """
    shape = service_model(service).operation_model(operation).input_shape
    documented = f"its form is told by: aws {service} {re.sub('(?<!^)(?=[A-Z])', '-', operation).lower()} help"
    if report := library_report(request, shape):
        line = _NAMED.sub(lambda found: found["head"] + option_of(found["path"], origins), report.splitlines()[0])
        raise WrongUsage(line, remedy=documented)
    for first in broken(request, shape):
        problem, remedy = _told(first)
        path = "".join(f"[{at.name}]" if at.kind == "item" else f".{at.name}" for at in first.path).lstrip(".")
        raise WrongUsage(f"{option_of(path, origins)} {problem}", remedy=remedy or documented)


def option_of(path: str, origins: Mapping[str, str]) -> str:
    """The option that a path into a request came from, with what follows below it."""
    plain = re.sub(r"\[\d+\]", "", path)
    for known in sorted(origins, key=len, reverse=True):
        if plain == known or plain.startswith(f"{known}."):
            return origins[known] + plain[len(known) :]
    return plain


def _told(each: Broken) -> tuple[str, str]:
    """What is wrong, and what to do about it where the operation's documentation is not the best answer."""
    value, limit = each.value, each.limit
    if each.rule == "enum":
        near = get_close_matches(value, limit, 1, 0.3)
        few = ", ".join(limit[:12]) + (", …" if len(limit) > 12 else "")
        newer = "; where AWS has newer ones: pip install -U boto3" if len(limit) > 12 else ""
        meant = f"did you mean {near[0]}" if near else "take one"
        return f"is {value!r}, which is none of: {few}", f"{meant}{newer}"
    if each.rule == "pattern":
        return f"is {value!r}, which is not of AWS's form {limit}", ""
    if each.shape.type_name in NUMBERS:
        return (
            f"is {value}, and AWS takes {limit} at most",
            f"a number from {each.shape.metadata.get('min')} to {limit}",
        )
    return f"is {len(value)} long, and AWS takes {limit} at most", ""
