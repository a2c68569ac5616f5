"""Options that several commands take, and help that is written once, where the Python API has it too."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

import typer

from likewise.core.errors import WrongUsage
from likewise.engine.options import EngineOptions


def described(options: type, name: str) -> str:
    """The help of the field `name` of an options dataclass."""
    return str(next(f.metadata["help"] for f in fields(options) if f.name == name))


EngineName = Annotated[str | None, typer.Option("--engine", metavar="NAME", help=described(EngineOptions, "name"))]
Precision = Annotated[
    str | None, typer.Option("--precision", metavar="NAME", help=described(EngineOptions, "precision"))
]
Exact = Annotated[bool, typer.Option("--exact", help="The same as --precision fp32.")]


def asked_precision(precision: str | None, exact: bool) -> str | None:
    """What `--precision` and `--exact` say together; WrongUsage where they disagree."""
    if exact and precision not in (None, "fp32"):
        raise WrongUsage(f"--exact is fp32, and --precision is {precision}", remedy="give one of the two")
    return "fp32" if exact else precision
