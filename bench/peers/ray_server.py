"""Ray Serve with one replica, a pyfunc and no batching: `python -m bench.peers.ray_server MODEL PORT`.

A port of the deployment code of the plugin mlflow-ray-serve 0.2 to current Ray.
"""
# mypy: disable-error-code="import-not-found, import-untyped, misc, untyped-decorator, attr-defined"

from __future__ import annotations

import json
import sys
from typing import Any

import mlflow.pyfunc
import pandas as pd
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=100)
class Pyfunc:
    """Takes `{"dataframe_split": …}` and returns a list of records."""

    def __init__(self, uri: str) -> None:
        self._model = mlflow.pyfunc.load_model(uri)

    async def __call__(self, request: Request) -> Any:
        """One `predict` per request."""
        frame = pd.DataFrame(**(await request.json())["dataframe_split"])
        return json.loads(self._model.predict(frame).to_json(orient="records"))


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    serve.run(Pyfunc.bind(sys.argv[1]), route_prefix="/invocations", blocking=True)
