"""The plugin for `mlflow deployments … -t likewise:/TARGET`, which supports all targets of Likewise."""

from likewise.mlflow_plugins.client import DeploymentClient, help_of, run_local
from likewise.targets.registry import names

__all__ = ["DeploymentClient", "run_local", "target_help"]

target_help = help_of(*names())
