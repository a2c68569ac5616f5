"""Reads deployments back from AWS as receipts and statuses, including those of other users."""

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
from likewise.targets.sagemaker.names import BUILD, BUNDLE, ENGINE, NAME, PRECISION, SOURCE, TRUST
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
_LIKEWISE_ENV = ("LIKEWISE_ENGINE", "LIKEWISE_PRECISION", "LIKEWISE_TRUST")


def receipts(aws: Aws, uri: str) -> list[Receipt]:
    """A receipt for every endpoint that has Likewise's tags."""
    names = [each["EndpointName"] for each in aws.pages("sagemaker", "list_endpoints", "Endpoints")]
    endpoints = [each for name in names if (each := inspection.endpoint(aws, name)) is not None]
    return [_receipt(aws, uri, each) for each in endpoints if each.tags.get(NAME) == each.name and BUNDLE in each.tags]


def status_of(aws: Aws, name: str) -> Status:
    """The endpoint's status by SageMaker; details: its instances, configuration, models and costs."""
    endpoint = inspection.endpoint(aws, name)
    if endpoint is None:
        return Status("gone", about=f"SageMaker has no endpoint {name!r} in {aws.at.region}")
    described = endpoint.description
    variants = described.get("ProductionVariants", ())
    options = SageMakerOptions(**_options(endpoint, {}))
    details: dict[str, JsonValue] = {
        "status": endpoint.status,
        "costs": "nothing" if endpoint.status == "Failed" else options.costs,
        "instances": {each["VariantName"]: each.get("CurrentInstanceCount") for each in variants},
        "config": endpoint.config,
        "models": endpoint.models,
        "arn": endpoint.arn,
    }
    about = described.get("FailureReason") or ("" if endpoint.status == "InService" else endpoint.status)
    state = STATES.get(endpoint.status, "failing")
    served = endpoint.tags.get(BUNDLE), endpoint.tags.get(BUILD)
    return Status(state, url_of(aws, name), about, details, *served)


def _receipt(aws: Aws, uri: str, endpoint: EndpointDescription) -> Receipt:
    tags, described = endpoint.tags, endpoint.description
    trust = tags.get(TRUST) == "true"
    source = tags.get(SOURCE, tags[BUNDLE])
    model = ModelSpec(
        tags[BUNDLE], Path(source), source, tags.get(ENGINE), tags.get(PRECISION), trust, tags.get(BUILD, "")
    )
    variant = _latest_variant(endpoint)
    described_model = inspection.model(aws, variant["ModelName"]) or {} if "ModelName" in variant else {}
    options = SageMakerOptions(**_options(endpoint, described_model))
    outputs = {
        "config": {"config": endpoint.config},
        "endpoint": {"arn": endpoint.arn, "url": url_of(aws, endpoint.name), "costs": options.costs},
    }
    created, updated = _time(described, "Creation"), _time(described, "LastModified")
    return Receipt(uri, endpoint.name, model, as_json(options), outputs, created, updated)


def _latest_variant(endpoint: EndpointDescription) -> Mapping[str, Any]:
    """The variant that was deployed last: `mode=add` appends it to the existing ones."""
    return endpoint.variants[-1] if endpoint.variants else {}


def _options(endpoint: EndpointDescription, model: Mapping[str, Any]) -> dict[str, Any]:
    """The options that AWS's descriptions of the endpoint and the model contain."""
    options: dict[str, Any] = {}
    sources = ((VARIANT, _latest_variant(endpoint)), (CONFIG, endpoint.config_description), (MODEL, model))
    for paths, description in sources:
        values = {option: _at(description, path) for path, option in paths.items()}
        options.update({option: value for option, value in values.items() if value is not None})
    container = model.get("PrimaryContainer") or {}
    env = {key: value for key, value in container.get("Environment", {}).items() if key not in _LIKEWISE_ENV}
    if env:
        options["env"] = env
    return options


def _at(value: Any, path: str) -> Any:
    """The value at a dotted path, None if there is none."""
    for name in path.split("."):
        value = (value or {}).get(name)
    return value


def _time(described: Mapping[str, Any], which: str) -> str:
    when: datetime = described[f"{which}Time"]
    return when.astimezone(UTC).isoformat(timespec="seconds")
