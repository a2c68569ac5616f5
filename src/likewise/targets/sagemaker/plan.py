"""What a deployment, an update or a deletion does, as steps: each request to AWS as it will be sent."""

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
from likewise.targets.sagemaker.inspection import EndpointDescription
from likewise.targets.sagemaker.names import derived, tags_of
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """A deployment as it is to stand there."""

    at: SageMakerAddress
    name: str
    model: ModelSpec
    options: SageMakerOptions

    @property
    def tags(self) -> list[dict[str, str]]:
        """Of all that is made for it."""
        return tags_of(self.name, self.model, self.options.tags or {})

    def step(self, action: str, about: str, **params: JsonValue) -> PlanStep:
        """A step of this plan."""
        return step(self.at, action, about, **params)


def step(at: SageMakerAddress, action: str, about: str, **params: JsonValue) -> PlanStep:
    """A step of a plan; its id is its action."""
    return PlanStep(action, action, about, {"at": at.as_dict(), **params})


def create_steps(aws: Aws, asked: EndpointSpec) -> list[PlanStep]:
    """Raises AlreadyDeployed, WrongUsage, and what looking at AWS raises."""
    standing = inspection.endpoint(aws, asked.name)
    if standing is not None:
        way = "delete it first" if standing.status == "Failed" else f"likewise update {asked.name} MODEL"
        raise AlreadyDeployed(
            f"SageMaker has an endpoint {asked.name!r} in {asked.at.region} already ({standing.status})",
            remedy=f"{way}, or take another name",
        )
    if asked.options.mode in ("add", "replace"):
        raise WrongUsage(f"mode={asked.options.mode} is of an update", remedy=f"likewise update {asked.name} MODEL")
    made, model_name = model_steps(aws, asked)
    config, config_name, _ = _config(aws, asked, model_name, ())
    request = requests.create_request(asked.name, config_name, asked.tags)
    kind = "serverless" if asked.options.serverless_config is not None else asked.options.costs
    about = f"makes the endpoint {asked.name} ({kind}): it costs from here on until it is deleted"
    endpoint = asked.step(
        "endpoint", about, request=request, costs=asked.options.costs, timeout_s=asked.options.timeout_seconds
    )
    return [*made, config, endpoint, *_waiting(asked, config_name), *_scaling(asked)]


def update_steps(aws: Aws, asked: EndpointSpec) -> list[PlanStep]:
    """Raises NotDeployed, DeployFailed, TargetUnavailable, WrongUsage."""
    standing = _settled(aws, asked.name)
    options = asked.options
    if not (options.synchronous or options.archive):
        raise WrongUsage(
            "an update that is not waited for cannot remove what it replaces", remedy="-C archive=true, or wait for it"
        )
    made, model_name = model_steps(aws, asked)
    stays = standing.variants if options.mode == "add" else ()
    config, config_name, among = _config(aws, asked, model_name, stays)
    names = sorted({each["VariantName"] for each in (*standing.variants, *among)})
    scaled = inspection.scalings(aws, asked.name, names, needed=options.max_instances is not None)
    unscale = [asked.step("unscale", "takes autoscaling away while it is changed", before=scaled)] if scaled else []
    moved = [*unscale, _updating(asked, standing, config_name, scaled=bool(scaled))]
    tidied = _tidying(aws, asked, standing, config_name, among)
    return [*made, config, *moved, *_waiting(asked, config_name), *_scaling(asked), *tidied]


def delete_steps(
    aws: Aws, at: SageMakerAddress, name: str, options: SageMakerOptions, current: Receipt | None
) -> list[PlanStep]:
    """The endpoint, its configurations and models, what autoscaling knows and the archives; NotDeployed."""
    standing = inspection.endpoint(aws, name)
    configs, models = inspection.ours(aws, name)
    if standing is None and current is None and not (configs or models):
        raise NotDeployed(f"SageMaker has no endpoint {name!r} in {at.region}", remedy="likewise list shows what is")
    if options.archive and standing is not None:  # what earlier updates were told to keep
        configs = [each for each in configs if each == standing.config]
        models = [each for each in models if each in standing.models]
    variants = [each["VariantName"] for each in standing.variants] if standing else [options.variant_name]
    scaled = inspection.scalings(aws, name, variants, needed=options.max_instances is not None)
    archives = _archives(aws, name, models)
    removed = f"removes the endpoint {name}: it costs nothing from here on"
    steps = [
        step(at, "unscale", f"takes autoscaling from {name}", before=scaled) if scaled else None,
        step(at, "remove_endpoint", removed, name=name, timeout_s=options.timeout_seconds),
        step(at, "remove_configs", f"removes its configuration: {_listed(configs)}", names=configs),
        step(at, "remove_models", f"removes its model: {_listed(models)}", names=models),
        step(at, "remove_data", f"removes its archive: {_listed(archives)}", urls=archives) if archives else None,
    ]
    return [each for each in steps if each is not None]


# --- the image and the bundle ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Image:
    """What a model names. reference: as AWS takes it, or that of an earlier step; which: the same for a second run."""

    reference: JsonValue
    which: str


def image_steps(aws: Aws, asked: EndpointSpec) -> tuple[list[PlanStep], Image]:
    """The steps that make it, where it is not there."""
    options, model = asked.options, asked.model
    if options.image_url is not None:
        pinned = inspection.pinned(aws, options.image_url)
        return [], Image(pinned, pinned)
    name, tag = options.repository, registry.tag_of(model, options.platform, options.base_image, version("likewise"))
    which = f"{name}:{tag}"
    address = registry.find_repository(aws, name)
    digest = registry.find_image(aws, name, tag) if address else None
    if address and digest:
        return [], Image(f"{address}@{digest}", which)
    about = f"makes the repository {name} in ECR" if address is None else f"finds {address}"
    tags = [{"Key": key, "Value": value} for key, value in (options.tags or {}).items()]
    repository = asked.step("repository", about, name=name, tags=tags, existed=address is not None)
    image = asked.step(
        "image",
        f"makes the image for {options.platform} and pushes it as {name}:{tag[:19]}…",
        repository=output_of("repository", "repository"),
        name=name,
        tag=tag,
        platform=options.platform,
        base=options.base_image,
        model=model.as_dict(),
    )
    return [repository, image], Image(output_of("image", "image"), which)


def data_steps(aws: Aws, asked: EndpointSpec) -> tuple[list[PlanStep], str | None]:
    """The steps that put the bundle into S3, and its URL; none where it is in the image."""
    options, name, digest = asked.options, asked.name, asked.model.digest
    if options.bundle_in == "image":
        return [], None
    bucket = options.bucket or data.default_bucket(asked.at.named_region, inspection.account(aws))
    key = data.key_of(name, digest)
    there = options.bucket is not None or aws.find("s3", "head_bucket", Bucket=bucket) is not None
    held = there and aws.find("s3", "head_object", Bucket=bucket, Key=key) is not None
    steps = [] if there else [asked.step("bucket", f"makes the bucket {bucket}", bucket=bucket)]
    folder = str(asked.model.folder)
    about = f"puts the bundle at s3://{bucket}/{key}"
    sent = asked.step("data", about, bucket=bucket, key=key, digest=digest, folder=folder, existed=held)
    return [*steps, sent], f"s3://{bucket}/{key}"


# --- what SageMaker has ----------------------------------------------------------------------------------------------


def container_env(model: ModelSpec, options: SageMakerOptions) -> dict[str, str]:
    """What the container is told; see `likewise.container`."""
    told = {"LIKEWISE_ENGINE": model.engine, "LIKEWISE_PRECISION": model.precision}
    told["LIKEWISE_TRUST"] = "true" if model.trust else None
    return {**{name: value for name, value in told.items() if value is not None}, **(options.env or {})}


def model_steps(aws: Aws, asked: EndpointSpec) -> tuple[list[PlanStep], str]:
    """The steps that make the model, and what it is made of, where it is missing; the model's name."""
    image, made = image_steps(aws, asked)
    archive, url = data_steps(aws, asked)
    role = inspection.execution_role(aws, asked.options.execution_role_arn)
    env = container_env(asked.model, asked.options)
    request = requests.model_request(asked.options, "", role, made.reference, url, env, asked.tags)
    name = derived(asked.name, requests.model_request(asked.options, "", role, made.which, url, env, asked.tags))
    request["ModelName"] = name
    existed = inspection.model_there(aws, name) is not None
    return [*image, *archive, asked.step("model", f"makes the model {name}", request=request, existed=existed)], name


def _config(
    aws: Aws, asked: EndpointSpec, model: str, stays: Sequence[Mapping[str, Any]]
) -> tuple[PlanStep, str, list[dict[str, Any]]]:
    among = requests.variants(asked.options, model, stays)
    request = requests.config_request(asked.options, "", among, asked.tags)
    name = derived(asked.name, request)
    request["EndpointConfigName"] = name
    existed = aws.find("sagemaker", "describe_endpoint_config", EndpointConfigName=name) is not None
    about = f"makes the configuration {name}: {asked.options.costs}"
    return asked.step("config", about, request=request, existed=existed), name, among


def _updating(asked: EndpointSpec, standing: EndpointDescription, config: str, *, scaled: bool) -> PlanStep:
    options, by_steps = asked.options, asked.options.traffic in ("canary", "linear", "rolling")
    how = f", {options.traffic} by {options.traffic_percent} %" if by_steps else ""
    return asked.step(
        "update",
        f"moves the endpoint {asked.name} to it{how}; what answers now goes on until then",
        request=requests.update_request(options, asked.name, config, scaled=scaled),
        before=standing.config,
        costs=options.costs,
        timeout_s=asked.options.timeout_seconds,
    )


def _waiting(asked: EndpointSpec, config: str) -> list[PlanStep]:
    if not asked.options.synchronous:
        return []
    about = f"waits until {asked.name} answers, up to {asked.options.timeout_seconds} s"
    return [asked.step("wait", about, name=asked.name, config=config, timeout_s=asked.options.timeout_seconds)]


def _scaling(asked: EndpointSpec) -> list[PlanStep]:
    made = requests.scaling_requests(asked.options, asked.name)
    if made is None:
        return []
    target, policy = made
    about = f"lets it scale from {target['MinCapacity']} to {target['MaxCapacity']} instances"
    return [asked.step("scale", about, target=target, policies=[policy])]


def _tidying(
    aws: Aws, asked: EndpointSpec, standing: EndpointDescription, config: str, among: Sequence[Mapping[str, Any]]
) -> list[PlanStep]:
    if asked.options.archive or not asked.options.synchronous:
        return []
    stays = {each.get("ModelName") for each in among}
    configs = [standing.config] if standing.config != config else []
    models = [name for name in standing.models if name not in stays]
    kept = data.key_of(asked.name, asked.model.digest)
    archives = [url for url in _archives(aws, asked.name, models) if not url.endswith(kept)]
    about = f"removes what stood there before: {_listed([*configs, *models, *archives])}"
    tagged = {"arn": standing.arn, "tags": asked.tags}
    return [asked.step("tidy", about, configs=configs, models=models, urls=archives, tagged=tagged)]


def _archives(aws: Aws, name: str, models: Sequence[str]) -> list[str]:
    """The data of these models that this deployment has put into S3."""
    said = [inspection.model_there(aws, each) or {} for each in models]
    urls = {(each.get("PrimaryContainer") or {}).get("ModelDataUrl", "") for each in said}
    return sorted(url for url in urls if data.is_ours(url, name))


def _settled(aws: Aws, name: str) -> EndpointDescription:
    """The endpoint, in a state in which it can be changed."""
    standing = inspection.required(aws, name)
    if standing.status == "Failed":
        raise DeployFailed(
            f"the endpoint {name!r} has failed: {standing.said.get('FailureReason', 'AWS gives no reason')}",
            remedy=f"likewise delete {name}, then deploy it again: SageMaker changes no endpoint that has failed",
        )
    if standing.status not in inspection.SETTLED:
        raise TargetUnavailable(
            f"the endpoint {name!r} is being changed ({standing.status})", remedy="wait until AWS is done with it"
        )
    return standing


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
