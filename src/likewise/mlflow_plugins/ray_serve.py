"""`mlflow deployments … -t ray-serve` and `-t ray-serve://host:port`, where mlflow-ray-serve was used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow.exceptions import MlflowException

from likewise.core.errors import NotDeployed, WrongUsage
from likewise.mlflow_plugins import client  # the module: MLflow wants one client class to be visible here
from likewise.mlflow_plugins.client import help_of, run_local

__all__ = ["RayServeClient", "run_local", "target_help"]

target_help = help_of("ray-serve")


class RayServeClient(client.DeploymentClient):
    """Deployments on Ray Serve; applications that others run there are listed, as they always were, and left alone."""

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """One object an application: ours with all that is known of them, then those of others with name and url."""
        return [*super().list_deployments(endpoint), *self._others()]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """What is known of it, and how it is now; RESOURCE_DOES_NOT_EXIST."""
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
        """Take it down; nothing where it is not there, INVALID_PARAMETER_VALUE where it is not ours."""
        if not self.taken_down(name, config, endpoint):
            with client.as_mlflow():
                if name in [other["name"] for other in self._others()]:
                    raise WrongUsage(f"Likewise has not deployed {name!r}", remedy="take it down as it was deployed")

    def _others(self) -> list[dict[str, Any]]:
        from likewise.targets.ray.session import call
        from likewise.targets.ray.target import RayTarget

        address = RayTarget(self.target).address
        with client.as_mlflow():
            return [{**each, "flavor": None} for each in call(address, "others", {"address": address})]
