"""The example model `Upper`, from code: one string column `text` in, the same text in capitals out.

Its `model_config` may have:
- mark: what stands before each answer;
- version: a number that is answered beside each text, in a column of that name;
- lengths: whether the length of each text is answered beside it, in a column `length`;
- loading, predicting: a Python statement that is run first, the second one with `texts` and `model_input`.

A text `gate PATH` makes the file PATH.begun and is answered once there is PATH; one that begins with `bad ` raises.
"""

import errno
import os  # noqa: F401  for statements
import socket
import time
from pathlib import Path
from typing import Any

import mlflow


class Upper(mlflow.pyfunc.PythonModel):
    """Row by row the same."""

    def load_context(self, context: Any) -> None:
        self.config = dict(context.model_config or {})
        self._run("loading")

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow would read the hints
        texts = [str(text) for text in model_input["text"]]
        self._run("predicting", texts=texts, model_input=model_input)
        answers = [self.config.get("mark", "") + answer(text) for text in texts]
        more: dict[str, Any] = {}
        if "version" in self.config:
            more["version"] = self.config["version"]
        if self.config.get("lengths"):
            more["length"] = [len(text) for text in texts]
        if not more:
            return answers
        import pandas as pd

        return pd.DataFrame({"text": answers, **more})

    def _run(self, name: str, **known: Any) -> None:
        if statement := self.config.get(name):
            exec(statement, {**globals(), **known})  # noqa: S102  the tests' own


def answer(text: str) -> str:
    """One row's."""
    verb, _, path = text.partition(" ")
    if verb == "gate":
        Path(f"{path}.begun").touch()
        while not Path(path).exists():
            time.sleep(0.002)
    if text.startswith("bad "):
        raise ValueError(text)
    return text.upper()


# --- for statements --------------------------------------------------------------------------------------------------


def wait_for(path: str) -> None:
    """Until there is the file `path`."""
    while not Path(path).exists():
        time.sleep(0.002)


def log(path: str, *lines: object) -> None:
    """Append the lines to the file `path`."""
    with open(path, "a") as stream:
        stream.write("".join(f"{line}\n" for line in lines))


def isolated() -> None:
    """Raises where this process can write to the root folder or reach a network."""
    for refused, act in (
        (errno.EROFS, lambda: open("/written", "w").close()),
        (errno.ENETUNREACH, lambda: socket.create_connection(("192.0.2.1", 9), 5).close()),
    ):
        try:
            act()
        except OSError as error:
            if error.errno == refused:
                continue
            raise
        raise ValueError("this process is not isolated")


mlflow.models.set_model(Upper())
