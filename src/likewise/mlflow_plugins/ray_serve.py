"""`mlflow deployments … -t ray-serve` and `-t ray-serve://host:port`, where mlflow-ray-serve was used."""

from likewise.mlflow_plugins.client import DeploymentClient, help_of, run_local

__all__ = ["DeploymentClient", "run_local", "target_help"]

target_help = help_of("ray-serve")
