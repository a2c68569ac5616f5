"""Endpoints: created, updated all at once, deleted, each by a thread, with real containers behind them."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from likewise.targets.sagemaker.emulator.account import ENDPOINTS
from likewise.targets.sagemaker.emulator.catalog import Catalog, RequestParams, listed, now, refusal
from likewise.targets.sagemaker.emulator.fleet import Fleet, Running, Unfit

logger = logging.getLogger(__name__)

BROKE = "Request to service failed: the rehearsal broke, and its log says why."
STARTUP_S = 600.0  # where ContainerStartupHealthCheckTimeoutInSeconds does not say
IN_PROGRESS = frozenset({"Creating", "Updating", "Deleting"})


@dataclass(frozen=True)
class Variant:
    """A production variant that answers: one container, however many instances were asked for."""

    asked: Mapping[str, Any]
    running: Running
    since: datetime = field(default_factory=now)

    @property
    def name(self) -> str:
        """Its VariantName."""
        return str(self.asked["VariantName"])

    @property
    def weight(self) -> float:
        """Its share of the requests, of the sum of all."""
        return float(self.asked.get("InitialVariantWeight", 1.0))

    def summary(self) -> dict[str, Any]:
        """As DescribeEndpoint has it."""
        image = {
            "SpecifiedImage": self.running.image,
            "ResolvedImage": self.running.image,
            "ResolutionTime": self.since,
        }
        said = {
            "VariantName": self.name,
            "DeployedImages": [image],
            "CurrentWeight": self.weight,
            "DesiredWeight": self.weight,
        }
        if "ServerlessConfig" in self.asked:
            return {**said, "CurrentServerlessConfig": self.asked["ServerlessConfig"]}
        count = self.asked.get("InitialInstanceCount", 1)
        return {**said, "CurrentInstanceCount": count, "DesiredInstanceCount": count}


@dataclass
class EmulatedEndpoint:
    """One, as it stands."""

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

    def become(self, status: str, failure: str | None = None) -> None:
        """Another status."""
        self.status, self.failure, self.modified = status, failure, now()


class Endpoints:
    """One region's.  Methods named as SageMaker's operations take and give what those do.  Thread-safe."""

    def __init__(self, catalog: Catalog, fleet: Fleet) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._lock = catalog.lock
        self._endpoints: dict[str, EmulatedEndpoint] = {}
        self._threads: list[threading.Thread] = []

    def create_endpoint(self, asked: RequestParams) -> RequestParams:
        name = asked["EndpointName"]
        config = self._catalog.config(asked["EndpointConfigName"]).asked
        arn = self._catalog.account.arn("endpoint", name)
        with self._lock:
            if name in self._endpoints:
                raise refusal(f'Cannot create already existing endpoint "{arn}".')
            endpoint = EmulatedEndpoint(name, arn, asked["EndpointConfigName"], config)
            endpoint.deployment = asked.get("DeploymentConfig")
            self._endpoints[name] = endpoint
            self._catalog.know(arn, asked)
        self._in_thread(self._bring_up, endpoint, endpoint.config_name, config)
        return {"EndpointArn": arn}

    def update_endpoint(self, asked: RequestParams) -> RequestParams:
        config = self._catalog.config(asked["EndpointConfigName"]).asked
        with self._lock:
            endpoint = self._changeable(asked["EndpointName"])
            if endpoint.status != "InService":
                raise refusal(f'Cannot update endpoint "{endpoint.arn}" in status {endpoint.status}.')
            self._catalog.config(endpoint.config_name)  # SageMaker wants the one that stands there, too
            if not asked.get("RetainDeploymentConfig"):
                endpoint.deployment = asked.get("DeploymentConfig")
            endpoint.become("Updating")
        self._in_thread(self._bring_up, endpoint, asked["EndpointConfigName"], config)
        return {"EndpointArn": endpoint.arn}

    def delete_endpoint(self, asked: RequestParams) -> None:
        with self._lock:
            endpoint = self._changeable(asked["EndpointName"])
            endpoint.become("Deleting")
        self._in_thread(self._take_down, endpoint)

    def describe_endpoint(self, asked: RequestParams) -> RequestParams:
        with self._lock:
            endpoint = self._found(asked["EndpointName"])
            said = {
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
            return {name: value for name, value in said.items() if value is not None}

    def list_endpoints(self, asked: RequestParams) -> RequestParams:
        def more(endpoint: EmulatedEndpoint) -> RequestParams:
            return {"EndpointStatus": endpoint.status, "LastModifiedTime": endpoint.modified}

        with self._lock:
            return listed("Endpoints", "Endpoint", self._endpoints.items(), asked, more, "EndpointStatus")

    def answering(self, name: str, variant: str | None) -> tuple[Variant, RequestParams]:
        """A variant of the endpoint, by its weight unless it is named, and the configuration; AwsError."""
        with self._lock:
            endpoint = self._found(name)
            if not endpoint.variants or endpoint.status == "Deleting":
                raise refusal(f"Endpoint {name} is {endpoint.status} and answers nobody.")
            named = [each for each in endpoint.variants if variant in (None, each.name)]
            if not named:
                raise refusal(f"Variant {variant} was not found for endpoint {name}.")
            return random.choices(named, [each.weight or 1e-9 for each in named])[0], endpoint.config  # noqa: S311

    def close(self) -> None:
        """Wait for what is being changed; every container is stopped by whoever has the fleet."""
        for thread in self._threads:
            thread.join()

    def _bring_up(self, endpoint: EmulatedEndpoint, config_name: str, config: RequestParams) -> None:
        """The new fleet beside the old one; whoever asks is answered by the old one until all of the new is ready."""
        old = endpoint.variants
        try:
            new = self._all_started(endpoint, config)
        except Unfit as error:
            with self._lock:
                endpoint.become("InService" if old else "Failed", str(error))
            return
        with self._lock:
            endpoint.variants, endpoint.config, endpoint.config_name = new, config, config_name
        for variant in old:
            self._fleet.stop(variant.running)
        with self._lock:
            endpoint.become("InService")

    def _all_started(self, endpoint: EmulatedEndpoint, config: RequestParams) -> tuple[Variant, ...]:
        """A container for each variant; Unfit, with none left."""
        new: list[Variant] = []
        try:
            for asked in config["ProductionVariants"]:
                new.append(self._started(endpoint, asked))  # noqa: PERF401  those before one that fails must be known
        except Exception as error:
            for variant in new:
                self._fleet.stop(variant.running)
            if isinstance(error, Unfit):
                raise
            logger.exception("the rehearsal broke on the endpoint %s", endpoint.name)
            raise Unfit(f"{BROKE} ({type(error).__name__})") from error
        return tuple(new)

    def _started(self, endpoint: EmulatedEndpoint, asked: RequestParams) -> Variant:
        name = asked["VariantName"]
        model = self._catalog.models.get(asked["ModelName"])
        if model is None:
            raise Unfit(f"The model {asked['ModelName']} of production variant {name} does not exist.")
        running = self._fleet.start(
            model.asked,
            what=f"primary container for production variant {name}",
            group=f"{ENDPOINTS}/{endpoint.name}",
            stream=name,
            extra={},
            wait_s=asked.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_S),
        )
        return Variant(asked, running)

    def _take_down(self, endpoint: EmulatedEndpoint) -> None:
        for variant in endpoint.variants:
            self._fleet.stop(variant.running)
        with self._lock:
            del self._endpoints[endpoint.name]
            self._catalog.forget(endpoint.arn)

    def _found(self, name: str) -> EmulatedEndpoint:
        if name not in self._endpoints:
            raise refusal(f'Could not find endpoint "{self._catalog.account.arn("endpoint", name)}".')
        return self._endpoints[name]

    def _changeable(self, name: str) -> EmulatedEndpoint:
        endpoint = self._found(name)
        if endpoint.status in IN_PROGRESS:
            raise refusal(f'Cannot update in-progress endpoint "{endpoint.arn}".')
        return endpoint

    def _in_thread(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="likewise-rehearsal", daemon=True)
        self._threads.append(thread)
        thread.start()


def _capture(asked: RequestParams | None) -> RequestParams | None:
    """As DescribeEndpoint has the data capture that was asked for: recorded, nothing is captured here."""
    if asked is None:
        return None
    return {
        "EnableCapture": asked.get("EnableCapture", False),
        "CaptureStatus": "Stopped",
        "CurrentSamplingPercentage": asked["InitialSamplingPercentage"],
        "DestinationS3Uri": asked["DestinationS3Uri"],
        "KmsKeyId": asked.get("KmsKeyId", ""),
    }
