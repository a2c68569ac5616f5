"""The plugin for `mlflow deployments … -t ray-serve` and `-t ray-serve://host:port`, replacing mlflow-ray-serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow.exceptions import MlflowException

from likewise.core.errors import NotDeployed, WrongUsage
from likewise.mlflow_plugins import client  # the module, because MLflow requires exactly one client class in here
from likewise.mlflow_plugins.client import help_of, run_local

__all__ = ["RayServeClient", "run_local", "target_help"]

target_help = help_of("ray-serve")


class RayServeClient(client.DeploymentClient):
    """MLflow's client for Ray Serve.  Applications not deployed by Likewise are listed but cannot be changed."""

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """One dict per application: Likewise's deployments in full, then other applications (name, URL, state)."""
        return [*super().list_deployments(endpoint), *self._others()]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """The deployment and its current status.  Raises RESOURCE_DOES_NOT_EXIST."""
        try:
            return super().get_deployment(name, endpoint)
        except MlflowException as error:
            if not isinstance(error.__cause__, NotDeployed):
                raise
            for other in self._others():
                if other["name"] == name:
                    return other
            raise

    def delete_deployment(
        self, name: str, config: Mapping[str, object] | None = None, endpoint: str | None = None
    ) -> None:
        """Delete the deployment; does nothing if it does not exist.

        Raises INVALID_PARAMETER_VALUE for an application that Likewise did not deploy.
        """
        if not self.delete_if_exists(name, config, endpoint):
            with client.as_mlflow():
                if name in [other["name"] for other in self._others()]:
                    raise WrongUsage(
                        f"{name!r} was not deployed by Likewise", remedy="delete it with the tool that deployed it"
                    )

    def _others(self) -> list[dict[str, Any]]:
        from likewise.targets.ray.session import call
        from likewise.targets.ray.target import RayTarget, state_of

        address = RayTarget(self.target).address
        with client.as_mlflow():
            others = call(address, "others", {"address": address})
        return [{"name": each["name"], "flavor": None, "url": each["url"], "state": state_of(each)} for each in others]
