"""For the tests of the container and of its emulator: a bundle that answers in capitals, and the process itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from likewise.bundles.format import Manifest
from likewise.bundles.open import Bundle, open_bundle
from likewise.bundles.write import write_manifest
from likewise.pipeline.mlmodel import read_model

PATIENCE = 300  # seconds; none of these tests needs them
TEXT = ModelSignature(Schema([ColSpec("string", "text")]), Schema([ColSpec("string", "text")]))
CODE = """
import errno, os, socket, time
import mlflow

def answer(text, mark):
    verb, _, path = text.partition(" ")
    if verb == "gate":
        open(path + ".begun", "w").close()
        while not os.path.exists(path):
            time.sleep(0.002)
    if verb == "bad":
        raise ValueError(text)
    return mark + text.upper()

def isolated():
    for refused, act in (
        (errno.EROFS, lambda: open("/written", "w")),
        (errno.ENETUNREACH, lambda: socket.create_connection(("192.0.2.1", 9), 5)),
    ):
        try:
            act()
        except OSError as error:
            if error.errno == refused:
                continue
            raise
        raise ValueError("this place is not cut off")

class Upper(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        {loading}

    def predict(self, context, model_input, params=None):
        return [answer(text, {mark!r}) for text in model_input["text"]]

mlflow.models.set_model(Upper())
"""


def plain_model(folder: Path, mark: str = "", loading: str = "pass") -> Path:
    """An MLflow model; a text `gate PATH` makes PATH.begun and is answered once PATH is there, `bad …` raises.

    loading: a statement that is run first, such as `isolated()`, which raises where it can write or reach a network.
    """
    folder.mkdir(parents=True)
    code = folder / "code.py"
    code.write_text(dedent(CODE).format(mark=mark, loading=loading))
    mlflow.pyfunc.save_model(folder / "model", python_model=str(code), signature=TEXT, pip_requirements=["mlflow"])
    return folder / "model"


def upper_bundle(folder: Path, mark: str = "", loading: str = "pass") -> Bundle:
    """The same as a bundle; it needs trust."""
    model = plain_model(folder, mark, loading)
    facts = read_model(model)
    bundle = folder / "bundle"
    bundle.mkdir()
    model.rename(bundle / "model")
    write_manifest(bundle, Manifest({}, signature_raw=facts.signature_raw, row_wise=True, engines=facts.engines()))
    return open_bundle(bundle)


class Running:
    """`python -m likewise.container serve`; log: all that it has written."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def url(self) -> str:
        """Where it listens, once it does."""
        line = self.line(" at http://")
        return "http://127.0.0.1:" + line.partition(" at http://")[2].partition(";")[0].rpartition(":")[2]

    def line(self, part: str) -> str:
        """The first line of the log with this part, once it is there."""

        def there() -> bool:
            assert self.process.poll() is None or part in self.log, self.log
            return any(part in line for line in self.log.splitlines())

        until(there)
        return next(line for line in self.log.splitlines() if part in line)

    def ready(self) -> str:
        """Its URL, once the model is warm."""
        self.line("ready at ")
        return self.url()

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def container(log: Path, settings: Mapping[str, str], *prefix: str, command: tuple[str, ...] = ()) -> Iterator[Running]:
    """The process with these settings and nothing else of this process's environment; prefix: what starts it."""
    environment = {"PATH": os.environ["PATH"], "SAGEMAKER_BIND_TO_PORT": "0", "LIKEWISE_HOST": "127.0.0.1", **settings}
    whole = [*prefix, *(command or (sys.executable, "-m", "likewise.container", "serve"))]
    with log.open("wb") as stream, subprocess.Popen(whole, env=environment, stdout=stream, stderr=stream) as process:
        try:
            yield Running(process, log)
        finally:
            process.kill()


def until(done: Callable[[], bool]) -> None:
    """Until `done()`."""
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)
