"""Models of known versions, and their deployments on Ray without stored receipts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from likewise.bundles.open import open_bundle
from likewise.core.option_fields import as_json
from likewise.core.spec import ModelSpec
from likewise.targets.base import Outputs, Receipt
from likewise.targets.ray.ray_options import RayOptions
from likewise.targets.ray.target import RayTarget
from likewise.testing.models import upper_bundle

POISON = "poison"
"""A text for which a model of `versioned` raises; one that starts with `sleep`, such as `sleep0.5`, takes that long."""
PREDICTING = f"""
    if text == {POISON!r}:
        raise ValueError(text)
    if text.startswith("sleep"):
        time.sleep(float(text[5:]))
"""
SMALL = RayOptions(
    ray_actor_options={"num_cpus": 0.2}, health_check_period_s=0.3, graceful_shutdown_wait_loop_s=0.2, timeout_s=90
)
ONE_TRY = replace(SMALL, max_constructor_retry_count=1)


def versioned(folder: Path, version: int | str, *, loading: str = "pass", predicting: str = PREDICTING) -> ModelSpec:
    """A model that returns `VERSION:` and the upper-case text. loading, predicting: statements that it runs first."""
    bundle = upper_bundle(folder / f"version-{version}", f"{version}:", loading=loading, predicting=predicting)
    return ModelSpec(open_bundle(bundle).digest, bundle, "runs:/1/model", trust=True)


def broken(folder: Path) -> ModelSpec:
    """A model that cannot be loaded."""
    return versioned(folder, "broken", loading='raise ValueError("these weights are broken")')


def put(
    target: RayTarget, name: str, model: ModelSpec, options: RayOptions = SMALL, current: Receipt | None = None
) -> Receipt:
    """Execute the steps of a creation, or of an update of `current`; a failed step is not rolled back."""
    outputs: dict[str, Outputs] = {}
    for step in target.plan("create" if current is None else "update", name, model, options, current):
        outputs[step.id] = target.do(step.action, _filled(step.params, outputs))
    return Receipt(target.uri, name, model, as_json(options), outputs, "", "")


def shipped(
    target: RayTarget, name: str, model: ModelSpec, options: RayOptions = SMALL, current: Receipt | None = None
) -> dict[str, Any]:
    """Execute the step `ship` of such a plan; the parameters of its step `run`."""
    ship, run = target.plan("create" if current is None else "update", name, model, options, current)
    return _filled(run.params, {"ship": target.do(ship.action, ship.params)})


def _filled(params: Mapping[str, Any], outputs: Mapping[str, Outputs]) -> dict[str, Any]:
    return {**params, "shipment": outputs["ship"]["shipment"]} if "shipment" in params else dict(params)


def delete(target: RayTarget, name: str) -> None:
    """Execute the steps of a deletion."""
    for step in target.plan("delete", name, None, SMALL, None):
        target.do(step.action, step.params)


@contextmanager
def deployed(target: RayTarget, name: str, model: ModelSpec, options: RayOptions = SMALL) -> Iterator[Receipt]:
    """A deployment, deleted at the end in any state."""
    try:
        yield put(target, name, model, options)
    finally:
        delete(target, name)


def names(target: RayTarget) -> list[str]:
    """The names of the deployments on the cluster."""
    return [each.name for each in target.found()]


def pids(target: RayTarget, receipt: Receipt) -> list[int]:
    """The process IDs of the running replicas."""
    return [each["pid"] for each in target.status(receipt).details["replicas"] if each["state"] == "RUNNING"]


def predictions_of(url: str, *texts: str) -> list[str]:
    """The predictions of a deployment; its response must be successful."""
    response = httpx.post(url, json={"inputs": list(texts)}, timeout=60)
    assert response.status_code == 200, response.text
    predictions: list[str] = response.json()["predictions"]
    return predictions
