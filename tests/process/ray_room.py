"""Bundles of small models of known versions, deployments of them without receipts, and callers that never stop."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import mlflow.pyfunc
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from likewise.bundles.format import EngineEntry, Environment, Manifest
from likewise.bundles.open import open_bundle
from likewise.bundles.write import write_manifest
from likewise.core.spec import ModelSpec
from likewise.targets.base import Outputs, Receipt
from likewise.targets.ray.options import RayOptions
from likewise.targets.ray.target import RayTarget

PYFUNC = """
    import time

    import mlflow
    import pandas as pd

    class Versioned(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            if FAULT == "load":
                raise ValueError("these weights are broken")

        def predict(self, context, model_input, params=None):
            texts = list(model_input["text"])
            if any(text == "poison" for text in texts):
                raise ValueError("poison")
            time.sleep(sum(float(text[5:]) for text in texts if text.startswith("sleep")))
            return pd.DataFrame({"text": [text.upper() for text in texts], "version": VERSION})

    mlflow.models.set_model(Versioned())
"""
TEXT = [ColSpec("string", "text")]
SMALL = RayOptions(
    ray_actor_options={"num_cpus": 0.2}, health_check_period_s=1.0, graceful_shutdown_wait_loop_s=0.2, timeout_s=90
)


def versioned(folder: Path, version: int, fault: str = "") -> ModelSpec:
    """A pyfunc that answers in capitals, with its version; fault `load`: it cannot be loaded."""
    bundle = folder / f"bundle-{version}{fault}"
    code = folder / f"model_{version}{fault}.py"
    code.write_text(f"VERSION, FAULT = {version}, {fault!r}\n" + dedent(PYFUNC))
    signature = ModelSignature(Schema(TEXT), Schema([*TEXT, ColSpec("long", "version")]))
    mlflow.pyfunc.save_model(
        bundle / "model", python_model=str(code), signature=signature, pip_requirements=["mlflow", "pandas"]
    )
    environment, engine = Environment("3.11", ("mlflow", "pandas")), EngineEntry("pyfunc", "native", True, "sha256:2")
    manifest = Manifest(
        files={}, signature_raw=signature.to_dict(), row_wise=True, environment=environment, engines=(engine,)
    )
    write_manifest(bundle, manifest)
    return ModelSpec(open_bundle(bundle).digest, bundle, "runs:/1/model", trust=True)


def put(
    target: RayTarget, name: str, model: ModelSpec, options: RayOptions = SMALL, current: Receipt | None = None
) -> Receipt:
    """Do every step of a creation or update; a step that fails stays as it is."""
    steps = target.plan("create" if current is None else "update", name, model, options, current)
    outputs: dict[str, Outputs] = {}
    for step in steps:
        outputs[step.id] = target.do(step.action, filled(step.params, outputs))
    return receipt_of(target, name, model, options, outputs)


def filled(params: Mapping[str, Any], outputs: Mapping[str, Outputs]) -> dict[str, Any]:
    """The params of a step, with what the shipping gave."""
    return {**params, "shipment": outputs["ship"]["shipment"]} if "shipment" in params else dict(params)


def receipt_of(
    target: RayTarget, name: str, model: ModelSpec, options: RayOptions, outputs: Mapping[str, Outputs]
) -> Receipt:
    from likewise.core.options import as_json

    return Receipt(target.uri, name, model, as_json(options), outputs, "", "")


def delete(target: RayTarget, name: str) -> None:
    for step in target.plan("delete", name, None, SMALL, None):
        target.do(step.action, step.params)


def version_of(answer: httpx.Response) -> int:
    assert answer.status_code == 200, answer.text
    return int(answer.json()["predictions"][0]["version"])


class Callers:
    """Threads that ask the deployment at `url` one question after the other; what they were told."""

    def __init__(self, url: str, count: int) -> None:
        self.versions: Counter[int] = Counter()
        self.failures: list[str] = []
        self.count = count
        self._url = url
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]

    def wait_for(self, version: int, answers: int = 5) -> None:
        """Until so many more answers of this version have come."""
        with self._changed:
            wanted = self.versions[version] + answers
            assert self._changed.wait_for(lambda: self.versions[version] >= wanted, 60), self.versions

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(self._url, json={"inputs": ["a"]})
                    said, version = answer.text, version_of(answer)
                except (httpx.HTTPError, AssertionError, ValueError) as error:
                    said, version = f"{type(error).__name__}: {error}"[:300], None
                with self._changed:
                    if version is None:
                        self.failures.append(said)
                    else:
                        self.versions[version] += 1
                    self._changed.notify_all()


@contextmanager
def callers(url: str, count: int = 4) -> Iterator[Callers]:
    """Running while the block does."""
    made = Callers(url, count)
    made.start()
    try:
        yield made
    finally:
        made.stop()
