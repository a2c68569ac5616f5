"""The example model `Upper`, from code: takes a string column `text` and returns the texts in upper case.

Its `model_config` may have:
- mark: a prefix of each result;
- version: a number that is returned with each text, in a column of that name;
- lengths: whether the length of each text is returned too, in a column `length`;
- loading, predicting: a Python statement that runs first, the second one with `texts` and `model_input`.

A text `gate PATH` creates the file PATH.begun and waits until PATH exists; a text that starts with `bad ` raises.
"""

import errno
import os  # noqa: F401  for statements
import socket
import time
from pathlib import Path
from typing import Any

import mlflow


class Upper(mlflow.pyfunc.PythonModel):
    """Converts texts to upper case, with independent rows."""

    def load_context(self, context: Any) -> None:
        self.config = dict(context.model_config or {})
        self._run("loading")

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow would read the hints
        texts = [str(text) for text in model_input["text"]]
        self._run("predicting", texts=texts, model_input=model_input)
        results = [self.config.get("mark", "") + convert(text) for text in texts]
        more: dict[str, Any] = {}
        if "version" in self.config:
            more["version"] = self.config["version"]
        if self.config.get("lengths"):
            more["length"] = [len(text) for text in texts]
        if not more:
            return results
        import pandas as pd

        return pd.DataFrame({"text": results, **more})

    def _run(self, name: str, **known: Any) -> None:
        if statement := self.config.get(name):
            exec(statement, {**globals(), **known})  # noqa: S102  the statement comes from a test


def convert(text: str) -> str:
    """The result for one text; waits for a `gate` and raises for a `bad` text."""
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
    """Wait until the file `path` exists."""
    while not Path(path).exists():
        time.sleep(0.002)


def log(path: str, *lines: object) -> None:
    """Append the lines to the file `path`."""
    with open(path, "a") as stream:
        stream.write("".join(f"{line}\n" for line in lines))


def isolated() -> None:
    """Raise an error if this process can write to the root folder or connect to a network."""
    for expected, attempt in (
        (errno.EROFS, lambda: open("/written", "w").close()),
        (errno.ENETUNREACH, lambda: socket.create_connection(("192.0.2.1", 9), 5).close()),
    ):
        try:
            attempt()
        except OSError as error:
            if error.errno == expected:
                continue
            raise
        raise ValueError("this process is not isolated")


mlflow.models.set_model(Upper())
