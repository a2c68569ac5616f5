"""Emulated endpoints: a thread creates, updates (all at once) or deletes each one, with real containers."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from likewise.targets.sagemaker.emulator.account import ENDPOINTS
from likewise.targets.sagemaker.emulator.catalog import Catalog, RequestParams, list_page, now, validation_error
from likewise.targets.sagemaker.emulator.fleet import Fleet, Running, StartupFailed

logger = logging.getLogger(__name__)

INTERNAL_ERROR = "Request to service failed: internal error of the rehearsal; see its log."
STARTUP_S = 600.0  # default of ContainerStartupHealthCheckTimeoutInSeconds
IN_PROGRESS = frozenset({"Creating", "Updating", "Deleting"})


@dataclass(frozen=True)
class Variant:
    """A production variant in service: one container, whatever its number of instances.

    params: the variant in the endpoint configuration.
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
        self._in_thread(self._bring_up, endpoint, params["EndpointConfigName"], config)
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
                "AsyncInferenceConfig": endpoint.config.get("AsyncInferenceConfig"),
                "DataCaptureConfig": _capture(endpoint.config.get("DataCaptureConfig")),
            }
            return {name: value for name, value in described.items() if value is not None}

    def list_endpoints(self, params: RequestParams) -> RequestParams:
        def more(endpoint: EmulatedEndpoint) -> RequestParams:
            return {"EndpointStatus": endpoint.status, "LastModifiedTime": endpoint.modified}

        with self._lock:
            return list_page("Endpoints", "Endpoint", self._endpoints.items(), params, more, "EndpointStatus")

    def pick_variant(self, name: str, variant: str | None) -> tuple[Variant, RequestParams]:
        """A variant for a request, and the endpoint's configuration; raises AwsError.

        variant: its name, None to choose one at random by weight.
        """
        with self._lock:
            endpoint = self._get(name)
            if not endpoint.variants or endpoint.status == "Deleting":
                raise validation_error(f"Endpoint {name} is {endpoint.status} and does not accept requests.")
            candidates = [each for each in endpoint.variants if variant in (None, each.name)]
            if not candidates:
                raise validation_error(f"Variant {variant} was not found for endpoint {name}.")
            chosen = random.choices(candidates, [each.weight or 1e-9 for each in candidates])[0]  # noqa: S311

            return chosen, endpoint.config

    def close(self) -> None:
        """Wait for changes in progress; the containers are stopped by the owner of the fleet."""
        for thread in self._threads:
            thread.join()

    def _bring_up(self, endpoint: EmulatedEndpoint, config_name: str, config: RequestParams) -> None:
        """Start the new containers; the old ones serve requests until all new ones are ready, and are then stopped."""
        old = endpoint.variants
        try:
            new = self._all_started(endpoint, config)
        except StartupFailed as error:
            with self._lock:
                endpoint.set_status("InService" if old else "Failed", str(error))
            return
        with self._lock:
            endpoint.variants, endpoint.config, endpoint.config_name = new, config, config_name
        for variant in old:
            self._fleet.stop(variant.running)
        with self._lock:
            endpoint.set_status("InService")

    def _all_started(self, endpoint: EmulatedEndpoint, config: RequestParams) -> tuple[Variant, ...]:
        """Start a container for each variant; raises StartupFailed after stopping all of them."""
        new: list[Variant] = []
        try:
            for params in config["ProductionVariants"]:
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

    def _take_down(self, endpoint: EmulatedEndpoint) -> None:
        for variant in endpoint.variants:
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
