"""A process that runs a model with MLflow alone: `mlflow.pyfunc.load_model` and MLflow's scoring server code.

Reads the model's URI and then request bodies from stdin, one per line, and writes `[status, body]` as JSON to stdout,
one per line.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    """Load the model and respond to requests until stdin ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # redirects what the model prints to stderr, so that stdout has responses only
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import load_model, scoring_server

    model: Any = load_model(sys.stdin.readline().rstrip("\n"))
    schema = model.metadata.get_input_schema()
    for line in sys.stdin:
        try:
            invocation = scoring_server.invocations(line, "application/json", model, schema)
            response = [invocation.status, invocation.response]
        except MlflowException as error:
            response = [error.get_http_status_code(), error.serialize_as_json()]
        out.write(json.dumps(response) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
