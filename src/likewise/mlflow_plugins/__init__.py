"""Plugins for `mlflow deployments … -t TARGET`, one module per target; MLflow finds them through entry points."""
