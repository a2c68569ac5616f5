"""A process that runs a model with MLflow alone: `mlflow.pyfunc.load_model` and MLflow's scoring server code.

Reads the model's URI and then request bodies from stdin, one per line, and writes `[status, body]` as JSON to stdout,
one per line.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from likewise.core.cores import limit_threads
from likewise.core.stdout import reserve_stdout, stdout


def main() -> None:
    """Load the model and respond to requests until stdin ends."""
    reserve_stdout()  # for responses
    limit_threads()
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
        stdout().write(json.dumps(response) + "\n")
        stdout().flush()


if __name__ == "__main__":
    main()
