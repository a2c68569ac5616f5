"""Deterministic names of AWS resources, so that a repeated run finds them, and tags that identify their deployment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from likewise.core.digests import sha256_json
from likewise.core.errors import WrongUsage
from likewise.core.spec import ModelSpec

LONGEST = 63
BUNDLE, BUILD, NAME = "likewise:bundle", "likewise:build", "likewise:name"
SOURCE, ENGINE, PRECISION, TRUST = "likewise:source", "likewise:engine", "likewise:precision", "likewise:trust"
_ENDPOINT = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_NOT_IN_TAG = re.compile(r"[^\w .:/=+@-]")
HEX = 12

Tags = list[dict[str, str]]


def check_name(name: str) -> None:
    """Raise WrongUsage if `name` is not a valid endpoint name."""
    if not _ENDPOINT.fullmatch(name):
        raise WrongUsage(
            f"{name!r} is not a valid endpoint name",
            remedy="use up to 63 letters, digits and hyphens; the first and the last must be a letter or a digit",
        )


def derived(name: str, *of: Any) -> str:
    """The deployment's name, shortened if necessary, and a digest of `of` as JSON."""
    tail = sha256_json(list(of)).removeprefix("sha256:")[:HEX]
    return f"{name[: LONGEST - HEX - 1].rstrip('-')}-{tail}"


def is_derived(name: str, candidate: str) -> bool:
    """Whether `candidate` has the form of a name that `derived` returns for `name`."""
    stem = re.escape(name[: LONGEST - HEX - 1].rstrip("-"))
    return re.fullmatch(rf"{stem}-[0-9a-f]{{{HEX}}}", candidate) is not None


def tags_of(name: str, model: ModelSpec, own: Mapping[str, str]) -> Tags:
    """Tags with the deployment's name and model, and the user's own."""
    required = {NAME: name, BUNDLE: model.digest, SOURCE: _value(model.source), TRUST: str(model.trust).lower()}
    choices = ((BUILD, model.build), (ENGINE, model.engine), (PRECISION, model.precision))
    optional = {key: value for key, value in choices if value}
    return [{"Key": key, "Value": value} for key, value in {**own, **required, **optional}.items()]


def as_mapping(tags: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """AWS's list of tags as a mapping."""
    return {each["Key"]: each["Value"] for each in tags}


def _value(text: str) -> str:
    """`text` as a valid tag value: invalid characters replaced, at most 256 characters."""
    return _NOT_IN_TAG.sub("_", text)[:256]
