"""What stands at AWS as it tells itself, whoever has deployed it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from likewise.core.option_fields import as_json
from likewise.core.spec import ModelSpec
from likewise.targets.base import DeploymentState, JsonValue, Receipt, Status
from likewise.targets.sagemaker import inspection
from likewise.targets.sagemaker.actions import url_of
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.inspection import EndpointDescription
from likewise.targets.sagemaker.names import BUNDLE, ENGINE, NAME, PRECISION, SOURCE, TRUST
from likewise.targets.sagemaker.requests import CONFIG, MODEL, VARIANT
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions

STATES: dict[str, DeploymentState] = {
    "InService": "ready",
    "Creating": "starting",
    "Updating": "updating",
    "SystemUpdating": "updating",
    "RollingBack": "updating",
    "Deleting": "gone",
    "Failed": "failing",
    "OutOfService": "failing",
    "UpdateRollbackFailed": "failing",
}
_OURS = ("LIKEWISE_ENGINE", "LIKEWISE_PRECISION", "LIKEWISE_TRUST")


def receipts(aws: Aws, uri: str) -> list[Receipt]:
    """Of every endpoint that carries our tags."""
    names = [each["EndpointName"] for each in aws.pages("sagemaker", "list_endpoints", "Endpoints")]
    there = [found for name in names if (found := inspection.endpoint(aws, name)) is not None]
    return [_receipt(aws, uri, each) for each in there if each.tags.get(NAME) == each.name and BUNDLE in each.tags]


def status_of(aws: Aws, name: str) -> Status:
    """As SageMaker says; what stands there, what it costs and why it fails in the details."""
    found = inspection.endpoint(aws, name)
    if found is None:
        return Status("gone", about=f"SageMaker has no endpoint {name!r} in {aws.at.region}")
    said = found.said
    running = {each["VariantName"]: each.get("CurrentInstanceCount") for each in said.get("ProductionVariants", ())}
    options = SageMakerOptions(**_options(found, {}))
    details: dict[str, JsonValue] = {
        "status": found.status,
        "costs": "nothing" if found.status == "Failed" else options.costs,
        "instances": running,
        "config": found.config,
        "models": found.models,
        "arn": found.arn,
    }
    about = said.get("FailureReason") or ("" if found.status == "InService" else found.status)
    state = STATES.get(found.status, "failing")
    return Status(state, url_of(aws, name), about, details, found.tags.get(BUNDLE))


def _receipt(aws: Aws, uri: str, found: EndpointDescription) -> Receipt:
    tags, said = found.tags, found.said
    trust = tags.get(TRUST) == "true"
    source = tags.get(SOURCE, tags[BUNDLE])
    model = ModelSpec(tags[BUNDLE], Path(source), source, tags.get(ENGINE), tags.get(PRECISION), trust)
    behind = inspection.model_there(aws, _own(found)["ModelName"]) or {} if "ModelName" in _own(found) else {}
    options = SageMakerOptions(**_options(found, behind))
    outputs = {
        "config": {"config": found.config},
        "endpoint": {"arn": found.arn, "url": url_of(aws, found.name), "costs": options.costs},
    }
    return Receipt(
        uri, found.name, model, as_json(options), outputs, _time(said, "Creation"), _time(said, "LastModified")
    )


def _own(found: EndpointDescription) -> Mapping[str, Any]:
    """The variant that was deployed last: the one that others were kept beside."""
    return found.variants[-1] if found.variants else {}


def _options(found: EndpointDescription, behind: Mapping[str, Any]) -> dict[str, Any]:
    """As far as AWS tells them."""
    said: dict[str, Any] = {}
    for paths, of in ((VARIANT, _own(found)), (CONFIG, found.configured), (MODEL, behind)):
        there = {option: _at(of, path) for path, option in paths.items()}
        said.update({option: value for option, value in there.items() if value is not None})
    container = behind.get("PrimaryContainer") or {}
    env = {key: value for key, value in container.get("Environment", {}).items() if key not in _OURS}
    if env:
        said["env"] = env
    return said


def _at(said: Any, path: str) -> Any:
    """What stands at the path, None for nothing."""
    for name in path.split("."):
        said = (said or {}).get(name)
    return said


def _time(said: Mapping[str, Any], which: str) -> str:
    when: datetime = said[f"{which}Time"]
    return when.astimezone(UTC).isoformat(timespec="seconds")
