"""Parameters shared by several commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from likewise import api
from likewise.cli import completion
from likewise.cli.environment import enter
from likewise.cli.flags import argument, flag
from likewise.cli.screen import Screen
from likewise.core.errors import WrongUsage
from likewise.core.option_fields import option
from likewise.engine.engine_options import EngineOptions

ModelArgument = Annotated[
    str,
    argument(
        "MODEL",
        "Path of a bundle, or MLflow model URI: runs:/…, models:/name/6, models:/name@alias, models:/m-…, "
        "a local path, s3://…",
        complete=completion.model,
    ),
]
TRUST = "Allow the model's own Python code to run."
ALLOW_VERSIONS = "Run the model although its library has another major version here than where it was logged."
ENV = "Run in an environment with the versions that the model was logged with, which is created once and kept."
TrustFlag = Annotated[bool, flag("--trust", TRUST)]
EnvFlag = Annotated[bool, flag("--env", ENV)]
AllowVersionsFlag = Annotated[bool, flag("--allow-versions", ALLOW_VERSIONS)]


@dataclass(frozen=True, slots=True)
class Choice(EngineOptions):
    """The engine to run, where, and what is allowed. Raises WrongUsage if flags contradict each other."""

    exact: bool = option(False, "Same as --precision fp32.", "--exact")
    trust: bool = option(False, TRUST, "--trust")
    allow_versions: bool = option(False, ALLOW_VERSIONS, "--allow-versions")
    env: bool = option(False, ENV, "--env")

    def __post_init__(self) -> None:
        if self.exact and self.precision not in (None, "fp32"):
            raise WrongUsage(
                f"--exact means --precision fp32, but --precision is {self.precision}", remedy="remove one of the two"
            )
        if self.exact:
            object.__setattr__(self, "precision", "fp32")
        EngineOptions.__post_init__(self)

    def find(self, model: str, report: Callable[[str], None] | None = None) -> api.Bundle:
        """The model's bundle, opened with this engine, precision and trust, in its own environment with --env."""
        self.enter(model, report)
        return api.find(
            model,
            engine=self.name,
            precision=self.precision,
            trust=self.trust,
            allow_versions=self.allow_versions,
            report=report,
        )

    def enter(self, model: str, report: Callable[[str], None] | None = None) -> None:
        """With --env, replace this process by the same command in the environment of `model`, unless it runs there."""
        if self.env:
            progress = report or (lambda _: None)
            enter(model, engine=self.name, trust=self.trust, allow_versions=self.allow_versions, report=progress)


def opened(model: str, choice: Choice, screen: Screen) -> api.Bundle:
    """The model's bundle with the chosen engine; prints which that is, and a hint if a faster one may be available."""
    bundle = choice.find(model, screen.note)
    screen.note(api.selected(bundle))
    if (hint := api.advice(bundle)) is not None:
        screen.note(hint)
    return bundle
