"""A request against botocore's own model of the operation, before anybody is asked: types, members, enums, limits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from likewise.core.errors import WrongUsage
from likewise.core.extras import need
from likewise.targets.sagemaker.patterns import matches

_NAMED = re.compile(r"(?P<head>[^:]*?parameter(?: in)? )(?P<path>[\w.\[\]]+)")


def check(service: str, operation: str, request: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Raise WrongUsage for what is wrong with `request`, by the names of the options that it was made of.

    origins: the option of each path into the request, list positions left out.
    """
    shape = _shape(service, operation)
    report = need("botocore.validate", extra="aws").ParamValidator().validate(request, shape)
    if report.has_errors():
        line = report.generate_report().splitlines()[0]
        raise WrongUsage(
            _NAMED.sub(lambda found: _renamed(found, origins), line), remedy=_documented(service, operation)
        )
    for path, problem, remedy in _problems(request, shape, ""):
        raise WrongUsage(f"{option_of(path, origins)} {problem}", remedy=remedy or _documented(service, operation))


def option_of(path: str, origins: Mapping[str, str]) -> str:
    """The option that a path into a request came from, with what follows below it."""
    plain = re.sub(r"\[\d+\]", "", path)
    for known in sorted(origins, key=len, reverse=True):
        if plain == known or plain.startswith(f"{known}."):
            return origins[known] + plain[len(known) :]
    return plain


@lru_cache(maxsize=8)
def _model(service: str) -> Any:
    return need("botocore.session", extra="aws").get_session().get_service_model(service)  # seconds, for SageMaker's


def _shape(service: str, operation: str) -> Any:
    return _model(service).operation_model(operation).input_shape


def _problems(value: Any, shape: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """Path, problem and remedy of what the library does not look at."""
    match shape.type_name:
        case "structure":
            for name, inner in value.items():
                yield from _problems(inner, shape.members[name], f"{path}.{name}".lstrip("."))
        case "list":
            yield from _length(value, shape, path)
            for at, inner in enumerate(value):
                yield from _problems(inner, shape.member, f"{path}[{at}]")
        case "map":
            yield from _length(value, shape, path)
            for key, inner in value.items():
                yield from _problems(key, shape.key, f"{path}.{key}")
                yield from _problems(inner, shape.value, f"{path}.{key}")
        case "string":
            yield from _text(value, shape, path)
        case "integer" | "long" | "float" | "double":
            yield from _number(value, shape, path)


def _text(value: str, shape: Any, path: str) -> Iterator[tuple[str, str, str]]:
    if shape.enum and value not in shape.enum:
        near = get_close_matches(value, shape.enum, 1, 0.3)
        few = ", ".join(shape.enum[:12]) + (", …" if len(shape.enum) > 12 else "")
        newer = "; where AWS has newer ones: pip install -U boto3" if len(shape.enum) > 12 else ""
        yield (
            path,
            f"is {value!r}, which is none of: {few}",
            f"{f'did you mean {near[0]}' if near else 'take one'}{newer}",
        )
        return
    yield from _length(value, shape, path)
    wanted = shape.metadata.get("pattern")
    if wanted and not matches(wanted, value):
        yield path, f"is {value!r}, which is not of AWS's form {wanted}", ""


def _length(value: Any, shape: Any, path: str) -> Iterator[tuple[str, str, str]]:
    most = shape.metadata.get("max")
    if most is not None and len(value) > most:
        yield path, f"is {len(value)} long, and AWS takes {most} at most", ""


def _number(value: float, shape: Any, path: str) -> Iterator[tuple[str, str, str]]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if most is not None and value > most:
        yield path, f"is {value}, and AWS takes {most} at most", f"a number from {least} to {most}"


def _renamed(found: re.Match[str], origins: Mapping[str, str]) -> str:
    return found["head"] + option_of(found["path"], origins)


def _documented(service: str, operation: str) -> str:
    return f"its form is told by: aws {service} {re.sub('(?<!^)(?=[A-Z])', '-', operation).lower()} help"
