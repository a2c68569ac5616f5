"""What can be set of a deployment on SageMaker: MLflow's options by MLflow's names, and what it lacks."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from likewise.core.errors import WrongUsage
from likewise.core.option_fields import option

# largest and smallest share of the instances that one step of a kind of update may take (AWS: "Blue/Green Deployments")
STEPS = {"canary": (1, 50), "linear": (10, 50), "rolling": (5, 50)}
_ARM = re.compile(r"ml\.[a-z]\d+g[a-z]*\.")  # Graviton: ml.m6g, ml.c7gn, …
_REPOSITORY = re.compile(r"(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SageMakerOptions:
    """Each field's `metadata["help"]` is its help text; None leaves it to AWS. Units as the names say."""

    # where, and as whom
    region_name: str | None = option(None, "AWS region, in the place of the target's.")
    assume_role_arn: str | None = option(None, "Role that is assumed to deploy, in the place of the target's.")
    execution_role_arn: str | None = option(
        None, "Role that the container has at AWS; by default the role that deploys."
    )
    # the image and the bundle
    image_url: str | None = option(
        None, "Image in ECR that has the bundle, or finds it with bundle_in=s3; by default it is made and pushed."
    )
    repository: str = option("likewise", "Repository in ECR for images that are made; made where missing.")
    base_image: str | None = option(None, "Image that an image is made on, with Python.")
    bundle_in: Literal["image", "s3"] = option("image", "The bundle is in the image, or in S3 as model.tar.gz.")
    bucket: str | None = option(None, "Bucket for model.tar.gz; by default sagemaker-REGION-ACCOUNT, made if missing.")
    env: dict[str, str] | None = option(None, "Environment of the container, as JSON; AWS shows it to its users.")
    # what it runs on
    instance_type: str = option("ml.m5.xlarge", "Instance type; Graviton ones get an image for arm64.")
    instance_count: int = option(1, "Instances at the start.")
    serverless_config: dict[str, Any] | None = option(
        None, 'In the place of instances, as JSON: {"MemorySizeInMB": 4096, "MaxConcurrency": 5}.'
    )
    variant_name: str = option("AllTraffic", "Name of the production variant.")
    volume_size_gb: int | None = option(None, "Disk of each instance, GB.")
    inference_ami_version: str | None = option(None, "Operating system image of the instances (InferenceAmiVersion).")
    startup_timeout_s: int | None = option(None, "Seconds in which a container must be healthy, 60 to 3600.")
    model_download_timeout_s: int | None = option(None, "Seconds for the download of model.tar.gz, 60 to 3600.")
    routing_strategy: str | None = option(None, "Which instance gets a request: LEAST_OUTSTANDING_REQUESTS, RANDOM.")
    vpc_config: dict[str, Any] | None = option(None, 'As JSON: {"SecurityGroupIds": [...], "Subnets": [...]}.')
    network_isolation: bool | None = option(None, "The container has no network at all; the bundle needs none.")
    kms_key_id: str | None = option(None, "Key for the disks of the instances.")
    # how it answers
    data_capture_config: dict[str, Any] | None = option(None, "SageMaker's DataCaptureConfig, as JSON.")
    async_inference_config: dict[str, Any] | None = option(
        None, 'Asynchronous endpoint, as JSON: {"OutputConfig": {"S3OutputPath": "s3://…"}}.'
    )
    tags: dict[str, str] | None = option(None, "Tags of the model, the configuration and the endpoint, as JSON.")
    # autoscaling
    max_instances: int | None = option(None, "Autoscaling, up to so many instances.")
    min_instances: int = option(1, "Autoscaling, down to so many instances.")
    invocations_per_instance: float = option(1000.0, "Autoscaling aims at so many requests an instance and minute.")
    scale_in_cooldown_s: int | None = option(None, "Seconds between two steps of scaling in.")
    scale_out_cooldown_s: int | None = option(None, "Seconds between two steps of scaling out.")
    scaling_policy: dict[str, Any] | None = option(
        None, "TargetTrackingScalingPolicyConfiguration as JSON, in the place of the three above."
    )
    # how an update goes
    mode: Literal["create", "replace", "add"] | None = option(
        None, "Of an update: replace what is there, or add a variant without traffic beside it."
    )
    variant_weights: dict[str, float] | None = option(None, "Shares of the traffic by variant, as JSON.")
    traffic: Literal["all_at_once", "canary", "linear", "rolling"] | None = option(
        None, "How an update takes the traffic over; by default all at once."
    )
    traffic_percent: int = option(10, "Share of the instances in the canary, or in each step.")
    traffic_wait_s: int = option(300, "Seconds after a step in which the alarms are watched.")
    termination_wait_s: int | None = option(None, "Seconds for which the old instances stay after an update.")
    update_timeout_s: int | None = option(None, "Seconds for an update at AWS, 600 to 28800; then it is rolled back.")
    rollback_alarms: list[str] | None = option(None, "CloudWatch alarms that roll an update back, as JSON.")
    deployment_config: dict[str, Any] | None = option(
        None, "SageMaker's DeploymentConfig as JSON, in the place of the six above."
    )
    archive: bool = option(False, "An update keeps the configuration and the model that it replaces.")
    # waiting
    synchronous: bool = option(True, "Wait until the endpoint answers.")
    timeout_seconds: int = option(1200, "Seconds to wait; then what was begun is taken back.")

    def __post_init__(self) -> None:
        self._check_waiting()
        self._check_traffic()
        if not _REPOSITORY.fullmatch(self.repository):
            raise WrongUsage(
                f"repository is {self.repository!r}", remedy="lower case letters and digits, with ._-/ between"
            )
        self._check_bundle()
        if self.max_instances is not None and not 0 <= self.min_instances <= self.max_instances:
            raise WrongUsage("min_instances is above max_instances", remedy="-C min_instances=1 -C max_instances=4")
        if self.serverless_config is not None and self.max_instances is not None:
            raise WrongUsage(
                "max_instances and serverless_config exclude each other",
                remedy="serverless endpoints scale by themselves",
            )
        for key, of in (("env", self.env), ("tags", self.tags)):
            wrong = [name for name, value in (of or {}).items() if not isinstance(value, str)]
            if wrong:
                raise WrongUsage(f"{key}.{wrong[0]} is no text", remedy=f"""-C '{key}={{"{wrong[0]}": "…"}}'""")

    def _check_bundle(self) -> None:
        if self.bundle_in == "s3" and self.image_url is None:
            raise WrongUsage(
                "an image that is made holds the bundle, and bundle_in=s3 puts it into S3",
                remedy="-C image_url=IMAGE of one that holds none, or leave bundle_in out",
            )
        if self.bundle_in == "image" and self.bucket is not None:
            raise WrongUsage(
                "a bucket is named, and the bundle is in the image", remedy="-C bundle_in=s3, or no bucket"
            )

    def _check_waiting(self) -> None:
        if self.timeout_seconds <= 0:
            raise WrongUsage("timeout_seconds is not above 0", remedy="-C timeout_seconds=1200")
        if self.synchronous and self.traffic_seconds > self.timeout_seconds:
            raise WrongUsage(
                f"the traffic moves in {self.traffic_seconds} seconds, and timeout_seconds is {self.timeout_seconds}",
                remedy=f"-C timeout_seconds={self.traffic_seconds + 1200}, or a shorter traffic_wait_s",
            )

        if not self.synchronous and self.max_instances is not None:
            raise WrongUsage(
                "autoscaling begins when the endpoint answers, which is not waited for", remedy="leave synchronous out"
            )

    def _check_traffic(self) -> None:
        least, most = STEPS.get(self.traffic or "", (0, 100))
        if not least <= self.traffic_percent <= most:
            raise WrongUsage(
                f"traffic_percent is {self.traffic_percent} with traffic={self.traffic}",
                remedy=f"a percentage from {least} to {most}",
            )
        if self.deployment_config is not None and self.traffic is not None:
            raise WrongUsage("traffic and deployment_config say the same", remedy="give one of the two")

    @property
    def traffic_seconds(self) -> int:
        """How long an update waits at least, by its own settings."""
        steps = {"canary": 1, "linear": math.ceil(100 / max(1, self.traffic_percent)) - 1}.get(self.traffic or "", 0)
        return steps * self.traffic_wait_s + (self.termination_wait_s or 0)

    @property
    def platform(self) -> str:
        """What the instances run, as container platforms are named."""
        return "linux/arm64" if self.serverless_config is None and _ARM.match(self.instance_type) else "linux/amd64"

    @property
    def costs(self) -> str:
        """What is paid for while the endpoint stands."""
        if self.serverless_config is not None:
            always = self.serverless_config.get("ProvisionedConcurrency")
            return f"serverless, by the request{f' and {always} kept warm by the hour' if always else ''}"
        count = f"{self.instance_count}"
        if self.max_instances is not None:
            count = f"{self.min_instances} to {self.max_instances}"
        return f"{count} x {self.instance_type}, by the hour"
