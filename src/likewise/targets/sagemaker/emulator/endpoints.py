"""Emulated endpoints: a thread creates, updates (all at once) or deletes each one, with real containers."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from likewise.targets.sagemaker.emulator.account import ENDPOINTS
from likewise.targets.sagemaker.emulator.catalog import (
    Catalog,
    RequestParams,
    all_variants,
    list_page,
    now,
    validation_error,
)
from likewise.targets.sagemaker.emulator.fleet import Fleet, Running, StartupFailed

logger = logging.getLogger(__name__)

INTERNAL_ERROR = "Request to service failed: internal error of the rehearsal; see its log."
STARTUP_S = 600.0  # default of ContainerStartupHealthCheckTimeoutInSeconds
IN_PROGRESS = frozenset({"Creating", "Updating", "Deleting"})
_CHANGES = {"DesiredWeight": "InitialVariantWeight", "DesiredInstanceCount": "InitialInstanceCount"}


@dataclass(frozen=True)
class Variant:
    """A production or shadow variant in service: one container, whatever its number of instances.

    params: the variant in the endpoint configuration, with the weight and the number of instances set since then.
    """

    params: Mapping[str, Any]
    running: Running
    since: datetime = field(default_factory=now)

    @property
    def name(self) -> str:
        """The variant's name."""
        return str(self.params["VariantName"])

    @property
    def weight(self) -> float:
        """The variant's weight; its fraction of the requests is this divided by the sum of all weights."""
        return float(self.params.get("InitialVariantWeight", 1.0))

    def summary(self) -> dict[str, Any]:
        """The variant in the response of DescribeEndpoint."""
        image = {
            "SpecifiedImage": self.running.image,
            "ResolvedImage": self.running.image,
            "ResolutionTime": self.since,
        }
        summary = {
            "VariantName": self.name,
            "DeployedImages": [image],
            "CurrentWeight": self.weight,
            "DesiredWeight": self.weight,
        }
        if "ServerlessConfig" in self.params:
            return {**summary, "CurrentServerlessConfig": self.params["ServerlessConfig"]}
        count = self.params.get("InitialInstanceCount", 1)
        return {**summary, "CurrentInstanceCount": count, "DesiredInstanceCount": count}


@dataclass
class EmulatedEndpoint:
    """The current state of an endpoint. failure: its FailureReason. deployment: its DeploymentConfig."""

    name: str
    arn: str
    config_name: str
    config: RequestParams
    status: str = "Creating"
    failure: str | None = None
    deployment: RequestParams | None = None
    variants: tuple[Variant, ...] = ()
    shadows: tuple[Variant, ...] = ()
    created: datetime = field(default_factory=now)
    modified: datetime = field(default_factory=now)

    def set_status(self, status: str, failure: str | None = None) -> None:
        """Change the status and the modification time."""
        self.status, self.failure, self.modified = status, failure, now()


class Endpoints:
    """One region's endpoints. Methods named like SageMaker operations take their parameters and return their response.

    Thread-safe.
    """

    def __init__(self, catalog: Catalog, fleet: Fleet) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._lock = catalog.lock
        self._endpoints: dict[str, EmulatedEndpoint] = {}
        self._threads: list[threading.Thread] = []

    def create_endpoint(self, params: RequestParams) -> RequestParams:
        name = params["EndpointName"]
        config = self._catalog.config(params["EndpointConfigName"]).params
        arn = self._catalog.account.arn("endpoint", name)
        with self._lock:
            if name in self._endpoints:
                raise validation_error(f'Cannot create already existing endpoint "{arn}".')
            endpoint = EmulatedEndpoint(name, arn, params["EndpointConfigName"], config)
            endpoint.deployment = params.get("DeploymentConfig")
            self._endpoints[name] = endpoint
            self._catalog.register(arn, params)
        self._in_thread(self._bring_up, endpoint, endpoint.config_name, config)
        return {"EndpointArn": arn}

    def update_endpoint(self, params: RequestParams) -> RequestParams:
        config = self._catalog.config(params["EndpointConfigName"]).params
        with self._lock:
            endpoint = self._changeable(params["EndpointName"])
            if endpoint.status != "InService":
                raise validation_error(f'Cannot update endpoint "{endpoint.arn}" in status {endpoint.status}.')
            self._catalog.config(endpoint.config_name)  # SageMaker also requires that the current one exists
            if not params.get("RetainDeploymentConfig"):
                endpoint.deployment = params.get("DeploymentConfig")
            endpoint.set_status("Updating")
            if params.get("RetainAllVariantProperties"):
                config = _retained(config, endpoint, params.get("ExcludeRetainedVariantProperties", ()))
        self._in_thread(self._bring_up, endpoint, params["EndpointConfigName"], config)
        return {"EndpointArn": endpoint.arn}

    def update_endpoint_weights_and_capacities(self, params: RequestParams) -> RequestParams:
        desired = {each["VariantName"]: each for each in params["DesiredWeightsAndCapacities"]}
        with self._lock:
            endpoint = self._changeable(params["EndpointName"])
            if endpoint.status != "InService":
                raise validation_error(f'Cannot update endpoint "{endpoint.arn}" in status {endpoint.status}.')
            known = {variant.name for variant in (*endpoint.variants, *endpoint.shadows)}
            if unknown := desired.keys() - known:
                raise validation_error(f'Could not find variants {sorted(unknown)} of endpoint "{endpoint.arn}".')
            endpoint.set_status("Updating")
        self._in_thread(self._rebalance, endpoint, desired)
        return {"EndpointArn": endpoint.arn}

    def delete_endpoint(self, params: RequestParams) -> None:
        with self._lock:
            endpoint = self._changeable(params["EndpointName"])
            endpoint.set_status("Deleting")
        self._in_thread(self._take_down, endpoint)

    def describe_endpoint(self, params: RequestParams) -> RequestParams:
        with self._lock:
            endpoint = self._get(params["EndpointName"])
            described = {
                "EndpointName": endpoint.name,
                "EndpointArn": endpoint.arn,
                "EndpointConfigName": endpoint.config_name,
                "EndpointStatus": endpoint.status,
                "FailureReason": endpoint.failure,
                "CreationTime": endpoint.created,
                "LastModifiedTime": endpoint.modified,
                "LastDeploymentConfig": endpoint.deployment,
                "ProductionVariants": [variant.summary() for variant in endpoint.variants] or None,
                "ShadowProductionVariants": [variant.summary() for variant in endpoint.shadows] or None,
                "AsyncInferenceConfig": endpoint.config.get("AsyncInferenceConfig"),
                "DataCaptureConfig": _capture(endpoint.config.get("DataCaptureConfig")),
            }
            return {name: value for name, value in described.items() if value is not None}

    def list_endpoints(self, params: RequestParams) -> RequestParams:
        def more(endpoint: EmulatedEndpoint) -> RequestParams:
            return {"EndpointStatus": endpoint.status, "LastModifiedTime": endpoint.modified}

        with self._lock:
            return list_page("Endpoints", "Endpoint", self._endpoints.items(), params, more, "EndpointStatus")

    def pick_variant(self, name: str, variant: str | None) -> tuple[Variant, Variant | None, RequestParams]:
        """A variant for a request, the shadow variant that gets a copy, and the configuration; raises AwsError.

        variant: its name, None to choose one at random by weight.  A shadow variant gets as large a part of the
        requests as its weight is of the production variant's.
        """
        with self._lock:
            endpoint = self._get(name)
            if not endpoint.variants or endpoint.status == "Deleting":
                raise validation_error(f"Endpoint {name} is {endpoint.status} and does not accept requests.")
            candidates = [each for each in endpoint.variants if variant in (None, each.name)]
            if not candidates:
                raise validation_error(f"Variant {variant} was not found for endpoint {name}.")
            weights = [each.weight for each in candidates]
            chosen = random.choices(candidates, weights if any(weights) else None)[0]  # noqa: S311
            copied = (each for each in endpoint.shadows if random.random() * chosen.weight < each.weight)  # noqa: S311
            return chosen, next(copied, None), endpoint.config

    def close(self) -> None:
        """Wait for changes in progress; the containers are stopped by the owner of the fleet."""
        for thread in self._threads:
            thread.join()

    def _bring_up(self, endpoint: EmulatedEndpoint, config_name: str, config: RequestParams) -> None:
        """Start the new containers; the old ones serve requests until all new ones are ready, and are then stopped."""
        old = (*endpoint.variants, *endpoint.shadows)
        try:
            new = self._all_started(endpoint, config)
        except StartupFailed as error:
            with self._lock:
                endpoint.set_status("InService" if old else "Failed", str(error))
            return
        with self._lock:
            production = len(config["ProductionVariants"])
            endpoint.variants, endpoint.shadows = new[:production], new[production:]
            endpoint.config, endpoint.config_name = config, config_name
        for variant in old:
            self._fleet.stop(variant.running)
        with self._lock:
            endpoint.set_status("InService")

    def _all_started(self, endpoint: EmulatedEndpoint, config: RequestParams) -> tuple[Variant, ...]:
        """Start a container for each variant; raises StartupFailed after stopping all of them."""
        new: list[Variant] = []
        try:
            for params in all_variants(config):
                new.append(self._started(endpoint, params))  # noqa: PERF401  on an error, those before must be stopped
        except Exception as error:
            for variant in new:
                self._fleet.stop(variant.running)
            if isinstance(error, StartupFailed):
                raise
            logger.exception("internal error of the rehearsal at the endpoint %s", endpoint.name)
            raise StartupFailed(f"{INTERNAL_ERROR} ({type(error).__name__})") from error
        return tuple(new)

    def _started(self, endpoint: EmulatedEndpoint, params: RequestParams) -> Variant:
        name = params["VariantName"]
        model = self._catalog.models.get(params["ModelName"])
        if model is None:
            raise StartupFailed(f"The model {params['ModelName']} of production variant {name} does not exist.")
        running = self._fleet.start(
            model.params,
            what=f"primary container for production variant {name}",
            group=f"{ENDPOINTS}/{endpoint.name}",
            stream=name,
            extra={},
            wait_s=params.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_S),
        )
        return Variant(params, running)

    def _rebalance(self, endpoint: EmulatedEndpoint, desired: Mapping[str, RequestParams]) -> None:
        """Change weights and capacities; the containers stay the same."""
        with self._lock:
            endpoint.variants, endpoint.shadows = (
                tuple(replace(each, params=_changed(each.params, desired.get(each.name, {}))) for each in variants)
                for variants in (endpoint.variants, endpoint.shadows)
            )
            endpoint.set_status("InService")

    def _take_down(self, endpoint: EmulatedEndpoint) -> None:
        for variant in (*endpoint.variants, *endpoint.shadows):
            self._fleet.stop(variant.running)
        with self._lock:
            del self._endpoints[endpoint.name]
            self._catalog.unregister(endpoint.arn)

    def _get(self, name: str) -> EmulatedEndpoint:
        if name not in self._endpoints:
            raise validation_error(f'Could not find endpoint "{self._catalog.account.arn("endpoint", name)}".')
        return self._endpoints[name]

    def _changeable(self, name: str) -> EmulatedEndpoint:
        endpoint = self._get(name)
        if endpoint.status in IN_PROGRESS:
            raise validation_error(f'Cannot update in-progress endpoint "{endpoint.arn}".')
        return endpoint

    def _in_thread(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="likewise-rehearsal", daemon=True)
        self._threads.append(thread)
        thread.start()


def _changed(params: RequestParams, desired: RequestParams) -> RequestParams:
    """A variant with the weight and the capacity in `desired`."""
    changed = {**params, **{name: desired[key] for key, name in _CHANGES.items() if key in desired}}
    if "ServerlessUpdateConfig" in desired:
        changed["ServerlessConfig"] = {**params.get("ServerlessConfig", {}), **desired["ServerlessUpdateConfig"]}
    return changed


def _retained(
    config: RequestParams, endpoint: EmulatedEndpoint, excluded: Sequence[Mapping[str, str]]
) -> RequestParams:
    """`config` with the current weights and numbers of instances of variants with the same name."""
    kept = [_CHANGES[key] for key in _CHANGES.keys() - {each["VariantPropertyType"] for each in excluded}]
    now_set = {each.name: {k: each.params[k] for k in kept if k in each.params} for each in endpoint.variants}
    variants = [{**each, **now_set.get(each["VariantName"], {})} for each in config["ProductionVariants"]]
    return {**config, "ProductionVariants": variants}


def _capture(params: RequestParams | None) -> RequestParams | None:
    """The data capture in the response of DescribeEndpoint; the emulator captures nothing."""
    if params is None:
        return None
    return {
        "EnableCapture": params.get("EnableCapture", False),
        "CaptureStatus": "Stopped",
        "CurrentSamplingPercentage": params["InitialSamplingPercentage"],
        "DestinationS3Uri": params["DestinationS3Uri"],
        "KmsKeyId": params.get("KmsKeyId", ""),
    }
