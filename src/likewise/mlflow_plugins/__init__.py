"""MLflow's `mlflow deployments … -t TARGET`, one module a target; MLflow finds them by its entry points."""
