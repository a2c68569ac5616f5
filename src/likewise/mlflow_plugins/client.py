"""A target behind MLflow's deployment client: its verbs, its return shapes, its exceptions.

Source: MLflow's documentation of `mlflow.deployments.BaseDeploymentClient` and of deployment plugins.
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
from mlflow.utils.proto_json_utils import NumpyEncoder, dump_input_data

from likewise import api, deployments
from likewise.core.errors import LikewiseError, NotDeployed, WrongUsage
from likewise.core.option_fields import coerce, described
from likewise.server import ServerOptions
from likewise.targets.base import Receipt, Status
from likewise.targets.registry import open_target

FLAVOR = "python_function"
TRUST = "LIKEWISE_TRUST"
PROTOCOL = {"dataframe_split", "dataframe_records", "instances", "inputs"}  # a dict with one of these is a request


class DeploymentClient(BaseDeploymentClient):  # type: ignore[misc]  # MLflow is untyped
    """Deployments on one target, by MLflow's names."""

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)
        with as_mlflow():
            self.target = open_target(target_of(target_uri)).uri  # as receipts have it

    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: Mapping[str, object] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Deploy `model_uri`; config: the target's options.  RESOURCE_ALREADY_EXISTS where the name is taken."""
        with as_mlflow(flavor, endpoint):
            receipt = deployments.deploy(model_uri, self.target, name, config, trust=_trust())
        return _told(receipt)

    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: Mapping[str, object] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Another model, other options, or both."""
        with as_mlflow(flavor, endpoint):
            receipt = deployments.update(name, model_uri, config, to=self.target, trust=_trust())
        return _told(receipt)

    def delete_deployment(
        self, name: str, config: Mapping[str, object] | None = None, endpoint: str | None = None
    ) -> None:
        """Take it down; nothing where it is not there, as MLflow asks for."""
        self.taken_down(name, config, endpoint)

    def taken_down(self, name: str, config: Mapping[str, object] | None, endpoint: str | None) -> bool:
        """`delete_deployment`; whether there was one."""
        with as_mlflow(endpoint=endpoint):
            if config:
                raise WrongUsage("a deletion takes no options", remedy="leave config out")
            try:
                deployments.delete(name, to=self.target)
            except NotDeployed:
                return False
            return True

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """One object a deployment on this target."""
        with as_mlflow(endpoint=endpoint):
            return [_told(each) for each in deployments.deployments(self.target)]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """What is known of it, and how it is now; RESOURCE_DOES_NOT_EXIST."""
        with as_mlflow(endpoint=endpoint):
            return _told(*deployments.status(name, to=self.target))

    def predict(
        self,
        deployment_name: str | None = None,
        inputs: Any = None,
        endpoint: str | None = None,
        *,
        df: Any = None,
        name: str | None = None,
    ) -> pd.DataFrame:
        """One row a prediction. inputs: a frame, an array, a list or dict of them, or JSON as text.

        name, df: the same as deployment_name and inputs, as mlflow-ray-serve had them.
        Raises MlflowException with what the deployment said.
        """
        with as_mlflow(endpoint=endpoint):
            body = _body(_either("inputs", inputs, "df", df))
            deployment = str(_either("deployment_name", deployment_name, "name", name))
            answer = deployments.ask(deployment, body.encode(), to=self.target)
        if answer.status != 200:
            raise _exception(answer.body)
        said = json.loads(answer.body)
        return pd.DataFrame(said["predictions"] if isinstance(said, dict) and "predictions" in said else said)


def target_of(uri: str) -> str:
    """The target's own URI of what MLflow calls it: `likewise:/local` is `local`."""
    scheme, _, rest = uri.partition(":")
    return rest.strip("/") if scheme == "likewise" else uri


def run_local(
    name: str,  # noqa: ARG001  a service in the foreground has no name
    model_uri: str,
    flavor: str | None = None,
    config: Mapping[str, object] | None = None,
) -> None:
    """Serve `model_uri` in the foreground until Ctrl-C; config: of the web service, such as port."""
    with as_mlflow(flavor):
        options = coerce(ServerOptions, config or {})
        api.serve(model_uri, options=options, trust=_trust(), ready=_tell)


def _tell(url: str) -> None:
    print(f"{url}/invocations", flush=True)  # noqa: T201  a pipe's reader waits for it


def help_of(*targets: str) -> Callable[[], str]:
    """MLflow's `target_help`, about these targets."""
    return lambda: "\n\n".join(map(_help, targets))


def _help(target: str) -> str:
    lines = [f"Options of {target} (-C KEY=VALUE, nested ones as JSON):"]
    for name, default, text in described(open_target(target).Options):
        lines.append(f"  {name}: {text} {f'[{default}]' if default else ''}".rstrip())
    return "\n".join(lines)


def _either(one: str, first: Any, other: str, second: Any) -> Any:
    """What was given by one of its two names."""
    if (first is None) == (second is None):
        raise WrongUsage(f"predict takes {one}, or {other} for it", remedy="predict(NAME, inputs)")
    return second if first is None else first


def _body(asked: Any) -> str:
    """A request; text is JSON, which the server reads as pandas writes it, too, where it comes as one JSON string."""
    if isinstance(asked, dict):  # MLflow's own way of writing one takes no dict
        whole = PROTOCOL & asked.keys()
        return json.dumps(asked if whole else {"inputs": asked}, cls=NumpyEncoder)
    return json.dumps(asked) if isinstance(asked, str) else str(dump_input_data(asked))


def _trust() -> bool:
    """Whoever deploys through MLflow loads models as MLflow does, unless it is to be strict."""
    return os.environ.get(TRUST) != "strict"


def _told(receipt: Receipt, status: Status | None = None) -> dict[str, Any]:
    """What MLflow's command line prints: it reads `name` and `flavor`."""
    url = status.url if status else receipt.shown().get("url")
    told = {
        "name": receipt.name,
        "flavor": FLAVOR,
        "model_uri": receipt.model.source,
        "bundle": receipt.model.digest,
        "url": url,
        "config": dict(receipt.options),
        "updated": receipt.updated,
    }
    if status is None:
        return told
    return {**told, "state": status.state, "about": status.about, **status.details, "bundle": status.bundle}


@contextmanager
def as_mlflow(flavor: str | None = None, endpoint: str | None = None) -> Iterator[None]:
    """Our errors as MLflow's: cause and remedy, and the code that MLflow's clients know.

    flavor, endpoint: what MLflow was given; another flavor than `FLAVOR`, and any endpoint, is refused.
    """
    try:
        if flavor not in (None, FLAVOR):
            raise WrongUsage(f"flavor is {flavor!r}", remedy=f"{FLAVOR!r}, or leave it out")
        if endpoint is not None:
            raise WrongUsage("this target has no endpoints", remedy="leave endpoint out; a deployment's name is enough")
        yield
    except LikewiseError as error:
        raise MlflowException(f"{error.cause}\n{error.remedy}", error_code=_code(error.mlflow_code)) from error


def _exception(body: bytes) -> MlflowException:
    """From the body of an error's answer."""
    try:
        said = json.loads(body)
        return MlflowException(f"{said['message']}\n{said['remedy']}", error_code=_code(said["error_code"]))
    except (ValueError, KeyError, TypeError):
        return MlflowException(body.decode(errors="replace")[:1000])


def _code(name: str) -> int:
    from mlflow.protos import databricks_pb2

    return int(databricks_pb2.ErrorCode.Value(name))
