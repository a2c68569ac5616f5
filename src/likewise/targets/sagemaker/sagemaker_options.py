"""Options of a deployment on SageMaker: MLflow's options with MLflow's names, and additional ones."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from likewise.core.errors import WrongUsage
from likewise.core.option_fields import option

# smallest and largest percentage of the instances in one step of an update (AWS: "Blue/Green Deployments")
STEPS = {"canary": (1, 50), "linear": (10, 50), "rolling": (5, 50)}
_ARM = re.compile(r"ml\.[a-z]\d+g[a-z]*\.")  # Graviton: ml.m6g, ml.c7gn, …
_REPOSITORY = re.compile(r"(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SageMakerOptions:
    """Each field's `metadata["help"]` is its help text; None uses AWS's default.  Units are in the names."""

    # region and roles
    region_name: str | None = option(None, "AWS region; overrides the target's.")
    assume_role_arn: str | None = option(None, "ARN of the role to assume for the deployment; overrides the target's.")
    execution_role_arn: str | None = option(None, "IAM role of the container; by default the role that deploys.")
    # the image and the bundle
    image_url: str | None = option(
        None,
        "Image in ECR that contains the bundle, or, with bundle_in=s3, does not; by default one is built and pushed.",
    )
    repository: str = option("likewise", "Repository in ECR for images that are built; created if missing.")
    base_image: str | None = option(None, "Base image from which the image is built; must contain Python.")
    bundle_in: Literal["image", "s3"] = option("image", "Where the bundle is: in the image, or in S3 as model.tar.gz.")
    bucket: str | None = option(None, "Bucket for model.tar.gz; default: sagemaker-REGION-ACCOUNT, created if missing.")
    env: dict[str, str] | None = option(None, "Environment of the container, as JSON; visible in AWS, so no secrets.")
    # instances and network
    instance_type: str = option("ml.m5.xlarge", "Instance type; Graviton types get an image for arm64.")
    instance_count: int = option(1, "Initial number of instances.")
    serverless_config: dict[str, Any] | None = option(
        None, 'Serverless instead of instances, as JSON: {"MemorySizeInMB": 4096, "MaxConcurrency": 5}.'
    )
    variant_name: str = option("AllTraffic", "Name of the production variant.")
    volume_size_gb: int | None = option(None, "Size of each instance's disk, in GB.")
    inference_ami_version: str | None = option(None, "Operating system image of the instances (InferenceAmiVersion).")
    startup_timeout_s: int | None = option(None, "Seconds until a container must be healthy, 60 to 3600.")
    model_download_timeout_s: int | None = option(None, "Seconds for the download of model.tar.gz, 60 to 3600.")
    routing_strategy: str | None = option(
        None, "Routing of requests to instances: LEAST_OUTSTANDING_REQUESTS or RANDOM."
    )
    vpc_config: dict[str, Any] | None = option(
        None, 'Network of the container, as JSON: {"SecurityGroupIds": [...], "Subnets": [...]}.'
    )
    network_isolation: bool | None = option(None, "Run the container without network access; the bundle needs none.")
    kms_key_id: str | None = option(None, "KMS key for the disks of the instances.")
    # inference
    data_capture_config: dict[str, Any] | None = option(None, "SageMaker's DataCaptureConfig, as JSON.")
    async_inference_config: dict[str, Any] | None = option(
        None, 'Asynchronous endpoint, as JSON: {"OutputConfig": {"S3OutputPath": "s3://…"}}.'
    )
    tags: dict[str, str] | None = option(None, "Tags of the model, the configuration and the endpoint, as JSON.")
    # autoscaling
    max_instances: int | None = option(None, "Enables autoscaling: the largest number of instances.")
    min_instances: int = option(1, "Autoscaling: the smallest number of instances.")
    invocations_per_instance: float = option(1000.0, "Autoscaling: target number of requests per instance and minute.")
    scale_in_cooldown_s: int | None = option(None, "Seconds between two scale-in activities.")
    scale_out_cooldown_s: int | None = option(None, "Seconds between two scale-out activities.")
    scaling_policy: dict[str, Any] | None = option(
        None,
        "TargetTrackingScalingPolicyConfiguration as JSON, instead of invocations_per_instance and scale_…_cooldown_s.",
    )
    # updates
    mode: Literal["create", "replace", "add"] | None = option(
        None, "For updates: replace (or create) replaces the current version, add adds a variant without traffic."
    )
    variant_weights: dict[str, float] | None = option(None, "Traffic weights by variant, as JSON.")
    traffic: Literal["all_at_once", "canary", "linear", "rolling"] | None = option(
        None, "How an update shifts the traffic; by default all at once."
    )
    traffic_percent: int = option(
        10, "Percentage of the instances in the first step (canary) or in each step (linear, rolling)."
    )
    traffic_wait_s: int = option(300, "Seconds to monitor the alarms after each step.")
    termination_wait_s: int | None = option(None, "Seconds to keep the old instances after an update.")
    update_timeout_s: int | None = option(None, "Seconds until AWS rolls an update back, 600 to 28800.")
    rollback_alarms: list[str] | None = option(None, "CloudWatch alarms that trigger a rollback, as JSON.")
    deployment_config: dict[str, Any] | None = option(
        None, "SageMaker's DeploymentConfig as JSON, instead of the options from traffic to rollback_alarms."
    )
    archive: bool = option(False, "Keep the configuration and the model that an update replaces.")
    # waiting
    synchronous: bool = option(True, "Wait until the endpoint is ready.")
    timeout_seconds: int = option(1200, "Seconds until the endpoint must be ready; otherwise it is rolled back.")

    def __post_init__(self) -> None:
        self._check_waiting()
        self._check_traffic()
        if not _REPOSITORY.fullmatch(self.repository):
            raise WrongUsage(
                f"repository={self.repository!r} is not a valid repository name",
                remedy="use lower case letters and digits, separated by one of ._-/",
            )
        self._check_bundle()
        if self.max_instances is not None and not 0 <= self.min_instances <= self.max_instances:
            raise WrongUsage(
                "min_instances is negative or above max_instances",
                remedy="use for example -C min_instances=1 -C max_instances=4",
            )
        if self.serverless_config is not None and self.max_instances is not None:
            raise WrongUsage(
                "max_instances and serverless_config exclude each other",
                remedy="remove max_instances: serverless endpoints scale by themselves",
            )
        for key, of in (("env", self.env), ("tags", self.tags)):
            wrong = [name for name, value in (of or {}).items() if not isinstance(value, str)]
            if wrong:
                raise WrongUsage(
                    f"{key}.{wrong[0]} is not a string", remedy=f"""use -C '{key}={{"{wrong[0]}": "…"}}'"""
                )
        from likewise.container.settings import read_options  # imported late, because few commands need it

        if "LIKEWISE_CAPTURE" in (self.env or {}):
            raise WrongUsage(
                "env sets LIKEWISE_CAPTURE, but the files of an instance end with it",
                remedy="remove it, and use SageMaker's own capture: -C data_capture_config=JSON",
            )
        read_options(self.env or {})  # in the container, a misspelt name would only be a line in the log

    def _check_bundle(self) -> None:
        if self.bundle_in == "s3" and self.image_url is None:
            raise WrongUsage(
                "bundle_in=s3 needs an image without a bundle, but the image that is built contains it",
                remedy="set -C image_url=IMAGE to an image without a bundle, or leave bundle_in out",
            )
        if self.bundle_in == "image" and self.bucket is not None:
            raise WrongUsage(
                "bucket is set, but the bundle is in the image", remedy="set -C bundle_in=s3, or leave bucket out"
            )

    def _check_waiting(self) -> None:
        if self.timeout_seconds <= 0:
            raise WrongUsage("timeout_seconds is not above 0", remedy="use for example -C timeout_seconds=1200")
        if self.synchronous and self.traffic_seconds > self.timeout_seconds:
            raise WrongUsage(
                f"the update takes {self.traffic_seconds} seconds or more, and timeout_seconds={self.timeout_seconds}",
                remedy=f"set -C timeout_seconds={self.traffic_seconds + 1200}, or a shorter traffic_wait_s",
            )
        if not self.synchronous and self.max_instances is not None:
            raise WrongUsage(
                "max_instances needs an endpoint that is ready, and synchronous=false does not wait for it",
                remedy="leave synchronous or max_instances out",
            )

    def _check_traffic(self) -> None:
        smallest, largest = STEPS.get(self.traffic or "", (0, 100))
        if not smallest <= self.traffic_percent <= largest:
            raise WrongUsage(
                f"traffic_percent is {self.traffic_percent} with traffic={self.traffic}",
                remedy=f"use a percentage from {smallest} to {largest}",
            )
        if self.deployment_config is not None and self.traffic is not None:
            raise WrongUsage("traffic and deployment_config exclude each other", remedy="set one of the two")

    @property
    def traffic_seconds(self) -> int:
        """The minimum duration of an update with these options, in seconds."""
        steps = {"canary": 1, "linear": math.ceil(100 / max(1, self.traffic_percent)) - 1}.get(self.traffic or "", 0)
        return steps * self.traffic_wait_s + (self.termination_wait_s or 0)

    @property
    def platform(self) -> str:
        """The container platform of the instances: linux/amd64 or linux/arm64."""
        return "linux/arm64" if self.serverless_config is None and _ARM.match(self.instance_type) else "linux/amd64"

    @property
    def costs(self) -> str:
        """What AWS bills while the endpoint exists."""
        if self.serverless_config is not None:
            always = self.serverless_config.get("ProvisionedConcurrency")
            return f"serverless, by the request{f' and {always} kept warm by the hour' if always else ''}"
        count = f"{self.instance_count}"
        if self.max_instances is not None:
            count = f"{self.min_instances} to {self.max_instances}"
        return f"{count} x {self.instance_type}, by the hour"
