"""A process of its own in which nothing of ours loads or asks the model: `mlflow.pyfunc.load_model`, and its scoring.

Reads request bodies, a line each, and writes `[status, body]` a line each.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main(uri: str) -> None:
    """Answer until stdin ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the model prints is no answer
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import load_model, scoring_server

    model: Any = load_model(uri)
    schema = model.metadata.get_input_schema()
    for line in sys.stdin:
        try:
            said = scoring_server.invocations(line, "application/json", model, schema)
            answer = [said.status, said.response]
        except MlflowException as error:
            answer = [error.get_http_status_code(), error.serialize_as_json()]
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    main(sys.argv[1])
