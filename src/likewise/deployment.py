"""Deployments for Python programs and notebooks: what `likewise.deploy`, `list` and `update` return."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likewise import deployments
from likewise.api import Bundle
from likewise.core.html_table import html_table
from likewise.core.notebook import notebook_report
from likewise.engine.frames import as_frame, request_body
from likewise.targets.base import Receipt, Status
from likewise.targets.facts import facts_of
from likewise.targets.responses import error_of, predictions_in


@dataclass(frozen=True, repr=False)
class Deployment:
    """A deployment on a target.  receipt: its record as of the last change."""

    receipt: Receipt

    @property
    def name(self) -> str:
        """Its name, unique on its target."""
        return self.receipt.name

    @property
    def target(self) -> str:
        """The URI of its target, such as `local`."""
        return self.receipt.target

    @property
    def url(self) -> str | None:
        """Its URL: the base URL or that of `/invocations`, as its target has it; None if it has none."""
        return self.receipt.shown().get("url")

    def predict(self, data: Any, params: Mapping[str, object] | None = None) -> Any:
        """The predictions for a DataFrame, a Series, an array, a list, a dict of them, or text.

        Returns a DataFrame if the predictions have columns, else a list with one value per row, or what the model
        returns for the request.  Raises NotDeployed, TargetUnavailable, and the error of the deployment's response.
        """
        response = deployments.predict(self.name, request_body(data, params), to=self.target)
        if response.status >= 400:
            raise error_of(self.name, response)
        return as_frame(predictions_in(json.loads(response.body)), data)

    def status(self) -> Status:
        """Its current state, as the target reports it."""
        return status(self.name, to=self.target)

    def update(
        self, model: str | Path | Bundle | None = None, options: Mapping[str, object] | None = None, **choice: Any
    ) -> Deployment:
        """Change the model, the options, or both; returns the new state.  choice: see `update`."""
        return update(self.name, model, options, to=self.target, **choice)

    def delete(self) -> None:
        """Delete it and all its resources.  Raises NotDeployed."""
        deployments.delete(self.name, to=self.target)

    def logs(self, lines: int = 100, *, follow: bool = False) -> Iterator[str]:
        """The last lines of its log, and with `follow` those that are added from now on."""
        return deployments.logs(self.name, to=self.target, lines=lines, follow=follow)

    def __repr__(self) -> str:
        return f"<Deployment {self.name!r} on {self.target}: {self.url or 'no URL'}, {self.receipt.model.build[:19]}…>"

    def _repr_html_(self) -> str:
        return html_table(self.name, facts_of(self.receipt))


def deploy(
    model: str | Path | Bundle,
    to: str,
    name: str,
    options: Mapping[str, object] | None = None,
    *,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    allow_versions: bool = False,
) -> Deployment:
    """Deploy `model` to the target `to` under `name`.  Resumes if interrupted; rolls back on failure.

    to: `local`, `container`, `ray`, `sagemaker:/REGION`, …  options: the target's options, as values or strings.
    Raises AlreadyDeployed, DeployFailed, TargetUnavailable, Busy, WrongUsage, and what `find` raises.
    """
    receipt = deployments.deploy(
        model,
        to,
        name,
        options,
        engine=engine,
        precision=precision,
        trust=trust,
        allow_versions=allow_versions,
        report=notebook_report(),
    )
    return Deployment(receipt)


def update(
    name: str,
    model: str | Path | Bundle | None = None,
    options: Mapping[str, object] | None = None,
    *,
    to: str | None = None,
    previous: bool = False,
    revision: int | None = None,
    engine: str | None = None,
    precision: str | None = None,
    trust: bool = False,
    allow_versions: bool = False,
) -> Deployment:
    """Change a deployment's model, its options, or both; options that are not given keep their values.

    to: its target, needed only if several have this name.  previous: restore the model and options before the last
    change.  revision: restore those of a revision in `history`.  Raises NotDeployed, and what `deploy` does.
    """
    receipt = deployments.update(
        name,
        model,
        options,
        to=to,
        previous=previous,
        revision=revision,
        engine=engine,
        precision=precision,
        trust=trust,
        allow_versions=allow_versions,
        report=notebook_report(),
    )
    return Deployment(receipt)


def list_(to: str | None = None) -> list[Deployment]:
    """The user's deployments, by name; to: those on this target, including the ones of other users."""
    return [Deployment(receipt) for receipt in deployments.deployments(to)]


def status(name: str, *, to: str | None = None) -> Status:
    """A deployment's current state, as its target reports it.  Raises NotDeployed."""
    return deployments.status(name, to=to)[1]
