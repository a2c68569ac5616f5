"""MLflow's deployment client for a target of Likewise, with MLflow's methods, return values and exceptions.

See MLflow's documentation of `mlflow.deployments.BaseDeploymentClient` and of deployment plugins.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd
from mlflow.deployments import BaseDeploymentClient
from mlflow.exceptions import MlflowException

from likewise import api, deployments
from likewise.core.errors import LikewiseError, NotDeployed, WrongUsage
from likewise.core.option_fields import coerce, described
from likewise.core.stdout import reserved_stdout, stdout
from likewise.engine.frames import request_body
from likewise.server import ServerOptions
from likewise.targets.base import Receipt, Status
from likewise.targets.registry import open_target
from likewise.targets.responses import predictions_in

FLAVOR = "python_function"
TRUST = "LIKEWISE_TRUST"


class DeploymentClient(BaseDeploymentClient):  # type: ignore[misc]  # MLflow is untyped
    """MLflow's client for the deployments on one target."""

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)
        with as_mlflow():
            self.target = open_target(target_of(target_uri)).uri  # the canonical URI, as in receipts

    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: Mapping[str, object] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Deploy `model_uri`; config: the target's options.  Raises RESOURCE_ALREADY_EXISTS if the name is in use."""
        with as_mlflow(flavor, endpoint):
            receipt = deployments.deploy(model_uri, self.target, name, config, trust=_trust())
        return _description(receipt)

    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: Mapping[str, object] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Change the model, the options, or both."""
        with as_mlflow(flavor, endpoint):
            receipt = deployments.update(name, model_uri, config, to=self.target, trust=_trust())
        return _description(receipt)

    def delete_deployment(
        self, name: str, config: Mapping[str, object] | None = None, endpoint: str | None = None
    ) -> None:
        """Delete the deployment; does nothing if it does not exist, as MLflow requires."""
        self.delete_if_exists(name, config, endpoint)

    def delete_if_exists(self, name: str, config: Mapping[str, object] | None, endpoint: str | None) -> bool:
        """Delete the deployment; returns whether it existed."""
        with as_mlflow(endpoint=endpoint):
            if config:
                raise WrongUsage("a deletion has no options", remedy="leave config out")
            try:
                deployments.delete(name, to=self.target)
            except NotDeployed:
                return False
            return True

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """One dict per deployment on this target; `state` and `about` only if it is not in order."""
        with as_mlflow(endpoint=endpoint):
            listed = deployments.listed(self.target)
        return [
            {**_description(each.receipt), **({"state": each.state, "about": each.remedy} if each.remedy else {})}
            for each in listed
            if each.receipt is not None
        ]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """The deployment and its current status.  Raises RESOURCE_DOES_NOT_EXIST."""
        with as_mlflow(endpoint=endpoint):
            return _description(*deployments.status(name, to=self.target, traffic=False))

    def predict(
        self,
        deployment_name: str | None = None,
        inputs: Any = None,
        endpoint: str | None = None,
        *,
        df: Any = None,
        name: str | None = None,
    ) -> pd.DataFrame:
        """The predictions as a DataFrame with one row per prediction.

        inputs: a DataFrame, an array, a list or dict of them, or JSON text.  name, df: aliases of deployment_name and
        inputs, for compatibility with mlflow-ray-serve.
        Raises MlflowException with the deployment's error message.
        """
        with as_mlflow(endpoint=endpoint):
            given = _either("inputs", inputs, "df", df)
            body = json.dumps(given).encode() if isinstance(given, str) else request_body(given)  # text is quoted JSON
            deployment = str(_either("deployment_name", deployment_name, "name", name))
            response = deployments.predict(deployment, body, to=self.target)
        if response.status != 200:
            raise _exception(response.body)
        return pd.DataFrame(predictions_in(json.loads(response.body)))


def target_of(uri: str) -> str:
    """The target's URI from MLflow's target URI: `likewise:/local` becomes `local`."""
    scheme, _, rest = uri.partition(":")
    return rest.strip("/") if scheme == "likewise" else uri


def run_local(
    name: str,  # noqa: ARG001  unused: a service in the foreground needs no name
    model_uri: str,
    flavor: str | None = None,
    config: Mapping[str, object] | None = None,
) -> None:
    """Serve `model_uri` in the foreground until Ctrl-C; config: options of the server, such as port."""
    with as_mlflow(flavor):
        options = coerce(ServerOptions, config or {})
        with reserved_stdout():  # programs wait for the URL on stdout
            api.serve(model_uri, options=options, trust=_trust(), ready=_print_url)


def _print_url(url: str) -> None:
    print(f"{url}/invocations", file=stdout(), flush=True)


def help_of(*targets: str) -> Callable[[], str]:
    """MLflow's `target_help` function for these targets."""
    return lambda: "\n\n".join(map(_help, targets))


def _help(target: str) -> str:
    lines = [f"Options of {target} (-C KEY=VALUE, nested values as JSON):"]
    for name, default, text in described(open_target(target).Options):
        lines.append(f"  {name}: {text} {f'[{default}]' if default else ''}".rstrip())
    return "\n".join(lines)


def _either(one: str, first: Any, other: str, second: Any) -> Any:
    """The value of an argument that has two names, exactly one of which must be given."""
    if (first is None) == (second is None):
        raise WrongUsage(f"predict requires either {one} or {other}", remedy="call predict(NAME, inputs)")
    return second if first is None else first


def _trust() -> bool:
    """Whether models may run their own code: yes, as in MLflow, unless LIKEWISE_TRUST is `strict`."""
    return os.environ.get(TRUST) != "strict"


def _description(receipt: Receipt, status: Status | None = None) -> dict[str, Any]:
    """The deployment as a dict; MLflow's command line requires `name` and `flavor`."""
    url = status.url if status else receipt.shown().get("url")
    description = {
        "name": receipt.name,
        "flavor": FLAVOR,
        "model_uri": receipt.model.source,
        "bundle": receipt.model.digest,
        "build": receipt.model.build,
        "url": url,
        "config": dict(receipt.options),
        "updated": receipt.updated,
    }
    if status is None:
        return description
    return {
        **description,
        "state": status.state,
        "about": status.about,
        **status.details,
        "bundle": status.bundle,
        "build": status.build,
    }


@contextmanager
def as_mlflow(flavor: str | None = None, endpoint: str | None = None) -> Iterator[None]:
    """Convert Likewise's errors to MLflow's: cause and remedy as the message, and MLflow's error code.

    flavor, endpoint: the arguments of MLflow's call; raises for a flavor other than FLAVOR, and for any endpoint.
    """
    try:
        if flavor not in (None, FLAVOR):
            raise WrongUsage(f"the flavor {flavor!r} is not supported", remedy=f"use {FLAVOR!r}, or leave it out")
        if endpoint is not None:
            raise WrongUsage("this target has no endpoints", remedy="leave endpoint out; give the deployment's name")
        yield
    except LikewiseError as error:
        raise MlflowException(f"{error.cause}\n{error.remedy}", error_code=_code(error.mlflow_code)) from error


def _exception(body: bytes) -> MlflowException:
    """An exception from the body of an error response."""
    try:
        error = json.loads(body)
        return MlflowException(f"{error['message']}\n{error['remedy']}", error_code=_code(error["error_code"]))
    except (ValueError, KeyError, TypeError):
        return MlflowException(body.decode(errors="replace")[:1000])


def _code(name: str) -> int:
    from mlflow.protos import databricks_pb2

    return int(databricks_pb2.ErrorCode.Value(name))
