"""A process that runs a model with MLflow alone: `mlflow.pyfunc.load_model(uri).predict`, or MLflow's scoring server.

Reads the model's URI from stdin.  Then, without arguments, it writes a line of JSON to stdout, reads messages, each a
pickled dict, and writes one line of JSON for each:

    {"table": Table, "params": dict or None}    {"value": prediction} or {"refused": name of the exception, "why": …}
    {"record": dict}                            the same, for values that do not fit the model's types
    {"trace": [text, …]}                        {"value": for each text what each step adds, or null}

With the descriptor of a listening socket as argument it serves HTTP instead.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
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

    stdout().write("{}\n")
    while True:
        try:
            message = pickle.load(sys.stdin.buffer)  # noqa: S301  from the parent process
        except EOFError:
            return
        reply = _trace(model, message["trace"]) if "trace" in message else _predict(model, message)
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
        return {"refused": type(error).__name__, "why": str(error)[:300]}


def _trace(model: Any, texts: list[str]) -> dict[str, object]:
    """For a pipeline of `likewise.pipeline`, see `Pipeline.trace`; null for a text that a step refuses."""
    pipeline: Any = model.unwrap_python_model()
    traces: list[object] = []
    for text in texts if hasattr(pipeline, "trace") else ():
        try:
            traces.append(pipeline.trace(text))
        except Exception:  # noqa: BLE001  of any step
            traces.append(None)
    return {"value": traces}


def _serve(model: Any, descriptor: int) -> None:
    import uvicorn

    threading.Thread(target=_end_with_parent, daemon=True).start()
    from mlflow.pyfunc.scoring_server import init

    uvicorn.run(init(model), fd=descriptor, log_level="warning")


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
