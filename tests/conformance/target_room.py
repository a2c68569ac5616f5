"""What the suite of targets needs: what a place is, models small enough for each of them, callers under load."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from urllib.parse import urlsplit

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from tests.support.classifier import make_classifier

from likewise.bundles.format import EngineEntry, Manifest, Reference
from likewise.bundles.write import write_manifest
from likewise.pipeline import Cache, Classify, DetectLanguage, Pipeline, Respond
from likewise.pipeline.mlmodel import read_model

PATIENCE = 60  # seconds; none of these tests needs them
TEXT = ModelSignature(Schema([ColSpec("string", "text")]), Schema([ColSpec("string", "text")]))


@dataclass(frozen=True)
class Place:
    """A target that is up. options: for a small, quick deployment; typo: an option as it is miswritten, and right.

    left: what stands there or runs there of any deployment. callers: of each kind, as many as leave a place of two
    cores time for its own work. signed: what its callers must send as their
    signature, where they come by way of AWS, which passes on none of our server's headers.
    """

    uri: str
    options: Mapping[str, str]
    typo: tuple[str, str]
    left: Callable[[], list[str]]
    callers: int = 4
    signed: str = ""

    def load(self, url: str) -> Load:
        """Its callers."""
        return Load(url, self.callers, self.signed)

    def digests(self, *served: str) -> set[str]:
        """What callers see of the bundles that served them."""
        return {"none"} if self.signed else set(served)


# --- models ----------------------------------------------------------------------------------------------------------


def upper_bundle(folder: Path, mark: str, *, loading: str = "pass", predicting: str = "pass") -> Path:
    """A bundle of a model that answers a text in capitals after `mark`.

    loading, predicting: statements that it runs first, such as `raise ValueError("broken")`.
    """
    folder.mkdir(parents=True)
    (folder / "code.py").write_text(
        dedent(
            f"""
            import mlflow, os, time

            class Upper(mlflow.pyfunc.PythonModel):
                def load_context(self, context):
                    {loading}

                def predict(self, context, model_input, params=None):
                    {predicting}
                    return [{mark!r} + text.upper() for text in model_input["text"]]

            mlflow.models.set_model(Upper())
            """
        )
    )
    bundle = folder / "bundle"
    mlflow.pyfunc.save_model(
        bundle / "model", python_model=str(folder / "code.py"), signature=TEXT, pip_requirements=["mlflow"]
    )
    facts = read_model(bundle / "model")
    engines = facts.engines()
    write_manifest(bundle, Manifest({}, signature_raw=facts.signature_raw, row_wise=True, engines=engines))
    return bundle


def pipeline_bundle(folder: Path) -> Path:
    """A bundle of a small text classifier as a declared pipeline: torch in fp32, and none of the model's own code."""
    source, bundle = "runs:/0123/model", folder / "bundle"
    held = make_classifier(bundle / "references" / "0-model")
    (bundle / "model").mkdir()
    steps = Cache(), DetectLanguage(), Classify(source), Respond()
    declared = Pipeline(*steps, uri="runs:/4567/pipeline").open({source: held}.__getitem__).declaration()
    column = json.dumps([{"type": "string", "name": "text", "required": True}])
    manifest = Manifest(
        {},
        references=(Reference(source, "references/0-model", "declared"),),
        signature_raw={"inputs": column, "outputs": column},
        row_wise=True,
        pipeline=declared,
        engines=(EngineEntry("torch", "fp32", False, "sha256:" + "0" * 64),),
    )
    write_manifest(bundle, manifest)
    return bundle


# --- callers ---------------------------------------------------------------------------------------------------------


@dataclass
class Load:
    """Callers that ask one request after another: some on connections that they keep, some on a new one each time.

    wrong: each request that got no answer, or not 200, or not the right one.
    """

    url: str
    callers: int = 4  # of each kind
    signed: str = ""
    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        kept = [threading.Thread(target=self._ask, args=(i, True)) for i in range(self.callers)]
        self._threads = kept + [threading.Thread(target=self._ask, args=(i, False)) for i in range(self.callers)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def until_answered(self, more: int) -> None:
        """Until so many more requests are answered."""
        wanted = self.answered + more
        until(lambda: self.answered >= wanted or bool(self.wrong))

    def _ask(self, caller: int, keep: bool) -> None:
        parts, count = urlsplit(self.url), 0
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
        while not self._over.is_set():
            count += 1
            text = f"{'kept' if keep else 'fresh'} {caller}.{count}"
            try:
                self._judge(text, connection)
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(f"{text}: {error!r}")
                connection.close()
            if not keep:
                connection.close()
        connection.close()

    def _judge(self, text: str, connection: http.client.HTTPConnection) -> None:
        body = f'{{"inputs": ["{text}"]}}'
        path = urlsplit(self.url).path.removesuffix("/invocations") + "/invocations"  # SageMaker's URL has it
        headers = {"Content-Type": "application/json", **({"Authorization": self.signed} if self.signed else {})}
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        said = answer.read().decode()
        self.digests.add(answer.headers.get("X-Likewise-Bundle", "none"))
        if answer.status != 200 or f"{text.upper()}" not in said:
            self.wrong.append(f"{text}: {answer.status} {said}")
        self.answered += 1


def until(done: Callable[[], bool]) -> None:
    """Until `done()`."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.01)


# --- a deploying process that is killed ------------------------------------------------------------------------------

DEPLOYING = """
import os, signal, sys
from likewise import deployments
from likewise.receipts import Receipts

verb, model, to, name, stop, *pairs = sys.argv[1:]
options = dict(pair.split("=", 1) for pair in pairs)

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def tell(step):
    if step.id == stop:
        die()

wanted = deployments.model_of(model, trust=True) if model else None
planned = deployments.plan(verb, name, to=to, model=wanted, options=options, settle=True)
if stop == "steps":
    print(*(step.id for step in planned.plan.steps))
    sys.exit()
if stop == "the receipt":
    Receipts.end = die
deployments.carry_out(planned, tell)
"""


def deploying(verb: str, model: Path | None, place: Place, name: str, stop: str) -> subprocess.CompletedProcess[str]:
    """A process that carries out a plan and is killed (SIGKILL) before its step `stop`, or before its receipt."""
    command = _deploying(verb, model, place, name, stop)
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def killed_at_work(model: Path, place: Place, name: str) -> None:
    """A process that creates a deployment, and is killed as soon as anything of it stands."""
    command = _deploying("create", model, place, name, "nowhere")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(lambda: place.left() != [])
        assert process.poll() is None, "it was done before it could be killed"
        process.kill()


def _deploying(verb: str, model: Path | None, place: Place, name: str, stop: str) -> list[str]:
    pairs = [f"{key}={value}" for key, value in place.options.items()]
    return [sys.executable, "-c", DEPLOYING, verb, str(model or ""), place.uri, name, stop, *pairs]
