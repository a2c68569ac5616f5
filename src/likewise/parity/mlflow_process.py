"""A process that runs a model with MLflow alone: `mlflow.pyfunc.load_model(uri).predict`, or MLflow's scoring server.

Reads the model's URI from stdin.  Then, without arguments, it reads messages, each a pickled dict, and writes one line
of JSON for each to stdout:

    {"table": Table, "params": dict or None}    {"value": prediction} or {"refused": name of the exception}
    {"record": dict}                            the same, for values that do not fit the model's types
    {"trace": [text, …]}                        {"value": for each text its columns after each step, or null}

With the descriptor of a listening socket as argument it serves HTTP instead.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any

from likewise.core.cores import limit_threads
from likewise.core.stdout import reserve_stdout, stdout


def main() -> None:
    """Load the model and respond to requests until stdin ends, or until the process is killed."""
    reserve_stdout()  # for responses
    limit_threads()
    from mlflow.pyfunc import load_model

    uri = sys.stdin.buffer.readline().decode().rstrip("\n")
    model: Any = load_model(uri)
    if sys.argv[1:]:
        _serve(model, int(sys.argv[1]))
        return
    from likewise.wire import Form, encode

    while True:
        try:
            message = pickle.load(sys.stdin.buffer)  # noqa: S301  from the parent process
        except EOFError:
            return
        reply = {"value": _trace(model, message["trace"])} if "trace" in message else _predict(model, message)
        stdout().write(encode(Form.DOCUMENT, reply).decode() + "\n")
        stdout().flush()


def _predict(model: Any, message: dict[str, Any]) -> dict[str, object]:
    import pandas

    from likewise.engine.model_input import model_input
    from likewise.engine.plain_values import plain

    try:
        if "record" in message:
            data: Any = pandas.DataFrame([message["record"]])
        else:
            data = model_input(model.metadata, message["table"])
        return {"value": plain(model.predict(data, params=message.get("params")))}
    except Exception as error:  # noqa: BLE001  whatever the model raises
        return {"refused": type(error).__name__}


def _trace(model: Any, texts: list[str]) -> object:
    """For a pipeline of `likewise.pipeline`, see `Pipeline.trace`; else None."""
    trace = getattr(model.unwrap_python_model(), "trace", None)
    return None if trace is None else [trace(text) for text in texts]


def _serve(model: Any, descriptor: int) -> None:
    import uvicorn
    from mlflow.pyfunc.scoring_server import init

    uvicorn.run(init(model), fd=descriptor, log_level="warning")


if __name__ == "__main__":
    main()
