"""Models of known versions, and deployments of them on Ray without receipts."""

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
"""A text for which a model of `versioned` raises; one that begins with `sleep`, such as `sleep0.5`, takes as long."""
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
    """A model that answers `VERSION:` and the text in capitals. loading, predicting: statements that it runs first."""
    bundle = upper_bundle(folder / f"version-{version}", f"{version}:", loading=loading, predicting=predicting)
    return ModelSpec(open_bundle(bundle).digest, bundle, "runs:/1/model", trust=True)


def broken(folder: Path) -> ModelSpec:
    """A model that cannot be loaded."""
    return versioned(folder, "broken", loading='raise ValueError("these weights are broken")')


def put(
    target: RayTarget, name: str, model: ModelSpec, options: RayOptions = SMALL, current: Receipt | None = None
) -> Receipt:
    """Do every step of a creation, or of an update of `current`; a step that fails stays as it is."""
    outputs: dict[str, Outputs] = {}
    for step in target.plan("create" if current is None else "update", name, model, options, current):
        outputs[step.id] = target.do(step.action, _filled(step.params, outputs))
    return Receipt(target.uri, name, model, as_json(options), outputs, "", "")


def shipped(
    target: RayTarget, name: str, model: ModelSpec, options: RayOptions = SMALL, current: Receipt | None = None
) -> dict[str, Any]:
    """The parameters of the step `run` of the same plan, after the step `ship`."""
    ship, run = target.plan("create" if current is None else "update", name, model, options, current)
    return _filled(run.params, {"ship": target.do(ship.action, ship.params)})


def _filled(params: Mapping[str, Any], outputs: Mapping[str, Outputs]) -> dict[str, Any]:
    return {**params, "shipment": outputs["ship"]["shipment"]} if "shipment" in params else dict(params)


def delete(target: RayTarget, name: str) -> None:
    """Do every step of a deletion."""
    for step in target.plan("delete", name, None, SMALL, None):
        target.do(step.action, step.params)


@contextmanager
def deployed(target: RayTarget, name: str, model: ModelSpec, options: RayOptions = SMALL) -> Iterator[Receipt]:
    """A deployment, deleted at the end, whatever it has become."""
    try:
        yield put(target, name, model, options)
    finally:
        delete(target, name)


def names(target: RayTarget) -> list[str]:
    """The deployments on the cluster."""
    return [each.name for each in target.found()]


def pids(target: RayTarget, receipt: Receipt) -> list[int]:
    """The processes of the replicas that run."""
    return [each["pid"] for each in target.status(receipt).details["replicas"] if each["state"] == "RUNNING"]


def answer_of(url: str, *texts: str) -> list[str]:
    """The answers of a deployment, which must be good."""
    response = httpx.post(url, json={"inputs": list(texts)}, timeout=60)
    assert response.status_code == 200, response.text
    predictions: list[str] = response.json()["predictions"]
    return predictions
