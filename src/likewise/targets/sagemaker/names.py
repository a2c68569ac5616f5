"""What things are called at AWS: names that a second run finds again, and tags that say whose a thing is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from likewise.core.digests import sha256_json
from likewise.core.errors import WrongUsage
from likewise.core.spec import ModelSpec

LONGEST = 63
BUNDLE, NAME = "likewise:bundle", "likewise:name"
SOURCE, ENGINE, PRECISION, TRUST = "likewise:source", "likewise:engine", "likewise:precision", "likewise:trust"
_ENDPOINT = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_NO_TAG = re.compile(r"[^\w .:/=+@-]")
HEX = 12

Tags = list[dict[str, str]]


def check_name(name: str) -> None:
    """WrongUsage where an endpoint cannot be called so."""
    if not _ENDPOINT.fullmatch(name):
        raise WrongUsage(
            f"{name!r} cannot be an endpoint's name",
            remedy="take up to 63 letters, digits and hyphens; a letter or a digit first and last",
        )


def derived(name: str, *of: Any) -> str:
    """A name that begins as the deployment's and differs where `of` (as JSON) does."""
    tail = sha256_json(list(of)).removeprefix("sha256:")[:HEX]
    return f"{name[: LONGEST - HEX - 1].rstrip('-')}-{tail}"


def is_derived(name: str, given: str) -> bool:
    """Whether `given` may be a name that `derived` made of `name`."""
    stem = re.escape(name[: LONGEST - HEX - 1].rstrip("-"))
    return re.fullmatch(rf"{stem}-[0-9a-f]{{{HEX}}}", given) is not None


def tags_of(name: str, model: ModelSpec, own: Mapping[str, str]) -> Tags:
    """Whose it is, what it is, and the user's own."""
    said = {NAME: name, BUNDLE: model.digest, SOURCE: _value(model.source), TRUST: str(model.trust).lower()}
    chosen = {key: value for key, value in ((ENGINE, model.engine), (PRECISION, model.precision)) if value is not None}
    return [{"Key": key, "Value": value} for key, value in {**own, **said, **chosen}.items()]


def as_mapping(tags: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """AWS's list of tags."""
    return {each["Key"]: each["Value"] for each in tags}


def _value(text: str) -> str:
    """As far as a tag's value can say it."""
    return _NO_TAG.sub("_", text)[:256]
