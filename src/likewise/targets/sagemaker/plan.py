"""Plans of deployments, updates and deletions: steps with each request exactly as it will be sent to AWS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from likewise.core.errors import AlreadyDeployed, DeployFailed, NotDeployed, TargetUnavailable, WrongUsage
from likewise.core.spec import ModelSpec
from likewise.targets.base import JsonValue, PlanStep, Receipt, output_of
from likewise.targets.sagemaker import data, inspection, registry, requests
from likewise.targets.sagemaker.address import SageMakerAddress
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.failures import KINDS
from likewise.targets.sagemaker.inspection import EndpointDescription
from likewise.targets.sagemaker.names import derived, tags_of
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions
from likewise.telemetry.switch import exporters


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """The desired deployment."""

    at: SageMakerAddress
    name: str
    model: ModelSpec
    options: SageMakerOptions

    @property
    def tags(self) -> list[dict[str, str]]:
        """The tags of all resources created for it."""
        return tags_of(self.name, self.model, self.options.tags or {})

    def step(self, action: str, about: str, **params: JsonValue) -> PlanStep:
        """A step of this plan."""
        return step(self.at, action, about, **params)


def step(at: SageMakerAddress, action: str, about: str, **params: JsonValue) -> PlanStep:
    """A step of a plan; its id is its action."""
    return PlanStep(action, action, about, {"at": at.as_dict(), **params})


def create_steps(aws: Aws, spec: EndpointSpec) -> list[PlanStep]:
    """The steps of a deployment.  Raises AlreadyDeployed, WrongUsage, and the errors of `inspection`."""
    existing = inspection.endpoint(aws, spec.name)
    if existing is not None:
        remedy = "delete it first" if existing.status == "Failed" else f"run: likewise update {spec.name} MODEL"
        raise AlreadyDeployed(
            f"SageMaker already has an endpoint {spec.name!r} in {spec.at.region} ({existing.status})",
            remedy=f"{remedy}, or choose another name",
        )
    if spec.options.mode in ("add", "replace"):
        raise WrongUsage(f"mode={spec.options.mode} is for updates", remedy=f"run: likewise update {spec.name} MODEL")
    prepared, model_name = model_steps(aws, spec)
    config, config_name, _ = _config_step(aws, spec, model_name, ())
    request = requests.create_request(spec.name, config_name, spec.tags)
    kind = "serverless" if spec.options.serverless_config is not None else spec.options.costs
    about = f"creates the endpoint {spec.name} ({kind}), which costs until it is deleted"
    endpoint = spec.step(
        "endpoint", about, request=request, costs=spec.options.costs, timeout_s=spec.options.timeout_seconds
    )
    return [*prepared, config, endpoint, *_wait_steps(spec, config_name), *_scaling_steps(spec)]


def update_steps(aws: Aws, spec: EndpointSpec) -> list[PlanStep]:
    """The steps of an update.  Raises NotDeployed, DeployFailed, TargetUnavailable, WrongUsage."""
    existing = _settled(aws, spec.name)
    options = spec.options
    if not (options.synchronous or options.archive):
        raise WrongUsage(
            "with synchronous=false, an update cannot remove what it replaces",
            remedy="set -C archive=true, or leave synchronous out",
        )
    prepared, model_name = model_steps(aws, spec)
    retained = existing.variants if options.mode == "add" else ()
    config, config_name, variants = _config_step(aws, spec, model_name, retained)
    names = sorted({each["VariantName"] for each in (*existing.variants, *variants)})
    scaled = inspection.autoscaling(aws, spec.name, names, needed=options.max_instances is not None)
    unscale = [spec.step("unscale", "removes autoscaling during the update", before=scaled)] if scaled else []
    update = [*unscale, _update_step(spec, existing, config_name, scaled=bool(scaled))]
    cleanup = _cleanup_steps(aws, spec, existing, config_name, variants)
    return [*prepared, config, *update, *_wait_steps(spec, config_name), *_scaling_steps(spec), *cleanup]


def delete_steps(
    aws: Aws, at: SageMakerAddress, name: str, options: SageMakerOptions, current: Receipt | None
) -> list[PlanStep]:
    """The steps that remove the endpoint, its configurations, models, autoscaling and archives; NotDeployed."""
    existing = inspection.endpoint(aws, name)
    configs, models = inspection.resources_of(aws, name)
    if existing is None and current is None and not (configs or models):
        raise NotDeployed(f"SageMaker has no endpoint {name!r} in {at.region}", remedy=KINDS["missing"].remedy)
    if options.archive and existing is not None:  # keep what earlier updates archived
        configs = [each for each in configs if each == existing.config]
        models = [each for each in models if each in existing.models]
    variants = [each["VariantName"] for each in existing.variants] if existing else [options.variant_name]
    scaled = inspection.autoscaling(aws, name, variants, needed=options.max_instances is not None)
    archives = _archives(aws, name, models)
    about = f"removes the endpoint {name}, which costs nothing afterwards"
    steps = [
        step(at, "unscale", f"removes autoscaling from {name}", before=scaled) if scaled else None,
        step(at, "remove_endpoint", about, name=name, timeout_s=options.timeout_seconds),
        step(at, "remove_configs", f"removes its configuration: {_listed(configs)}", names=configs),
        step(at, "remove_models", f"removes its model: {_listed(models)}", names=models),
        step(at, "remove_data", f"removes its archive: {_listed(archives)}", urls=archives) if archives else None,
    ]
    return [each for each in steps if each is not None]


# --- the image and the bundle ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Image:
    """The image of a model.

    reference: its address, or a reference to an earlier step's output. identity: the same in every run for one image.
    """

    reference: JsonValue
    identity: str


def image_steps(aws: Aws, spec: EndpointSpec) -> tuple[list[PlanStep], Image]:
    """The steps that build and push the image if it is missing, and the image."""
    options, model = spec.options, spec.model
    if options.image_url is not None:
        pinned = inspection.pinned(aws, options.image_url)
        return [], Image(pinned, pinned)
    telemetry = bool(exporters(options.env or {}))
    name, of = options.repository, (model, options.platform, options.base_image, version("likewise"))
    tag = registry.tag_of(*of, telemetry=telemetry)
    identity = f"{name}:{tag}"
    address = registry.find_repository(aws, name)
    digest = registry.find_image(aws, name, tag) if address else None
    if address and digest:
        return [], Image(f"{address}@{digest}", identity)
    about = f"creates the repository {name} in ECR" if address is None else f"uses the repository {address}"
    tags = [{"Key": key, "Value": value} for key, value in (options.tags or {}).items()]
    repository = spec.step("repository", about, name=name, tags=tags, existed=address is not None)
    image = spec.step(
        "image",
        f"builds the image for {options.platform} and pushes it as {name}:{tag[:19]}…",
        repository=output_of("repository", "repository"),
        name=name,
        tag=tag,
        platform=options.platform,
        base=options.base_image,
        telemetry=telemetry,
        model=model.as_dict(),
    )
    return [repository, image], Image(output_of("image", "image"), identity)


def data_steps(aws: Aws, spec: EndpointSpec) -> tuple[list[PlanStep], str | None]:
    """The steps that upload the bundle to S3, and its URL; no steps and None if the bundle is in the image."""
    options, name, digest = spec.options, spec.name, spec.model.key
    if options.bundle_in == "image":
        return [], None
    bucket = options.bucket or data.default_bucket(spec.at.named_region, inspection.account(aws))
    key = data.key_of(name, digest)
    bucket_exists = options.bucket is not None or aws.find("s3", "head_bucket", Bucket=bucket) is not None
    existed = bucket_exists and aws.find("s3", "head_object", Bucket=bucket, Key=key) is not None
    steps = [] if bucket_exists else [spec.step("bucket", f"creates the bucket {bucket}", bucket=bucket)]
    folder = str(spec.model.folder)
    about = f"uploads the bundle to s3://{bucket}/{key}"
    upload = spec.step("data", about, bucket=bucket, key=key, digest=digest, folder=folder, existed=existed)
    return [*steps, upload], f"s3://{bucket}/{key}"


# --- SageMaker's resources -------------------------------------------------------------------------------------------


def container_env(model: ModelSpec, options: SageMakerOptions) -> dict[str, str]:
    """The container's environment variables; see `likewise.container`."""
    own = {"LIKEWISE_ENGINE": model.engine, "LIKEWISE_PRECISION": model.precision}
    own["LIKEWISE_TRUST"] = "true" if model.trust else None
    return {**{name: value for name, value in own.items() if value is not None}, **(options.env or {})}


def model_steps(aws: Aws, spec: EndpointSpec) -> tuple[list[PlanStep], str]:
    """The steps that create the model, its image and its archive where they are missing, and the model's name."""
    image, built = image_steps(aws, spec)
    archive, url = data_steps(aws, spec)
    role = inspection.execution_role(aws, spec.options.execution_role_arn)
    env = container_env(spec.model, spec.options)
    request = requests.model_request(spec.options, "", role, built.reference, url, env, spec.tags)
    name = derived(spec.name, requests.model_request(spec.options, "", role, built.identity, url, env, spec.tags))
    request["ModelName"] = name
    existed = inspection.model(aws, name) is not None
    return [*image, *archive, spec.step("model", f"creates the model {name}", request=request, existed=existed)], name


def _config_step(
    aws: Aws, spec: EndpointSpec, model: str, retained: Sequence[Mapping[str, Any]]
) -> tuple[PlanStep, str, list[dict[str, Any]]]:
    """The step that creates the endpoint configuration, its name and its variants."""
    variants = requests.variants(spec.options, model, retained)
    request = requests.config_request(spec.options, "", variants, spec.tags)
    name = derived(spec.name, request)
    request["EndpointConfigName"] = name
    existed = aws.find("sagemaker", "describe_endpoint_config", EndpointConfigName=name) is not None
    about = f"creates the configuration {name}: {spec.options.costs}"
    return spec.step("config", about, request=request, existed=existed), name, variants


def _update_step(spec: EndpointSpec, existing: EndpointDescription, config: str, *, scaled: bool) -> PlanStep:
    options, by_steps = spec.options, spec.options.traffic in ("canary", "linear", "rolling")
    how = f", {options.traffic} by {options.traffic_percent} %" if by_steps else ""
    return spec.step(
        "update",
        f"updates the endpoint {spec.name} to it{how}; the current version serves until it is ready",
        request=requests.update_request(options, spec.name, config, scaled=scaled),
        before=existing.config,
        costs=options.costs,
        timeout_s=spec.options.timeout_seconds,
    )


def _wait_steps(spec: EndpointSpec, config: str) -> list[PlanStep]:
    if not spec.options.synchronous:
        return []
    about = f"waits until {spec.name} is ready, up to {spec.options.timeout_seconds} s"
    return [spec.step("wait", about, name=spec.name, config=config, timeout_s=spec.options.timeout_seconds)]


def _scaling_steps(spec: EndpointSpec) -> list[PlanStep]:
    scaling = requests.scaling_requests(spec.options, spec.name)
    if scaling is None:
        return []
    target, policy = scaling
    about = f"configures autoscaling from {target['MinCapacity']} to {target['MaxCapacity']} instances"
    return [spec.step("scale", about, target=target, policies=[policy])]


def _cleanup_steps(
    aws: Aws, spec: EndpointSpec, existing: EndpointDescription, config: str, variants: Sequence[Mapping[str, Any]]
) -> list[PlanStep]:
    if spec.options.archive or not spec.options.synchronous:
        return []
    in_use = {each.get("ModelName") for each in variants}
    configs = [existing.config] if existing.config != config else []
    models = [name for name in existing.models if name not in in_use]
    new_key = data.key_of(spec.name, spec.model.key)
    archives = [url for url in _archives(aws, spec.name, models) if not url.endswith(new_key)]
    about = f"removes the previous version: {_listed([*configs, *models, *archives])}"
    tagged = {"arn": existing.arn, "tags": spec.tags}
    return [spec.step("tidy", about, configs=configs, models=models, urls=archives, tagged=tagged)]


def _archives(aws: Aws, name: str, models: Sequence[str]) -> list[str]:
    """URLs of the archives of these models that this deployment has uploaded to S3, sorted."""
    descriptions = [inspection.model(aws, each) or {} for each in models]
    urls = {(each.get("PrimaryContainer") or {}).get("ModelDataUrl", "") for each in descriptions}
    return sorted(url for url in urls if data.is_archive_of(url, name))


def _settled(aws: Aws, name: str) -> EndpointDescription:
    """The endpoint; raises an error if its state does not allow an update."""
    existing = inspection.require_endpoint(aws, name)
    if existing.status == "Failed":
        raise DeployFailed(
            f"the endpoint {name!r} has failed: {existing.description.get('FailureReason', 'AWS gives no reason')}",
            remedy=f"run: likewise delete {name}, then deploy it again; SageMaker cannot update a failed endpoint",
        )
    if existing.status not in inspection.SETTLED:
        raise TargetUnavailable(f"endpoint {name!r} is being changed ({existing.status})", remedy=KINDS["busy"].remedy)
    return existing


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
