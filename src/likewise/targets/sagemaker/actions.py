"""Each step of a plan, done and undone: it looks first, and does what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from likewise.core.errors import LikewiseError
from likewise.core.spec import ModelSpec
from likewise.targets.base import Outputs
from likewise.targets.sagemaker import data, jobs, registry, scaling, settle
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.look import config_there, model_there
from likewise.targets.sagemaker.waiting import Patience

Params = Mapping[str, Any]
Do = Callable[[Aws, Patience, Params], Outputs | None]
Undo = Callable[[Aws, Patience, Params], None]


def _repository(aws: Aws, _: Patience, params: Params) -> Outputs:
    return {"repository": registry.make_repository(aws, params["name"], params["tags"])}


def _drop_repository(aws: Aws, _: Patience, params: Params) -> None:
    if not params["existed"]:
        registry.remove_repository(aws, params["name"])


def _image(aws: Aws, patience: Patience, params: Params) -> Outputs:
    address, name, tag = params["repository"], params["name"], params["tag"]
    digest = registry.find_image(aws, name, tag)
    if digest is None:
        from likewise.targets.sagemaker.image import Making, make_and_push  # who names an image needs no room for it

        made = Making(ModelSpec.from_dict(params["model"]), params["platform"], params["base"], patience.tell)
        digest = make_and_push(made, f"{address}:{tag}", lambda _: registry.credentials(aws))
    return {"image": f"{address}@{digest}"}


def _drop_image(aws: Aws, _: Patience, params: Params) -> None:
    registry.remove_image(aws, params["name"], params["tag"])


def _bucket(aws: Aws, _: Patience, params: Params) -> None:
    data.make_bucket(aws, params["bucket"])


def _drop_bucket(aws: Aws, _: Patience, params: Params) -> None:
    data.remove_bucket(aws, params["bucket"])


def _data(aws: Aws, _: Patience, params: Params) -> Outputs:
    return {"data": data.send(aws, params["bucket"], params["key"], Path(params["folder"]), params["digest"])}


def _drop_data(aws: Aws, _: Patience, params: Params) -> None:
    if not params["existed"]:
        data.remove(aws, f"s3://{params['bucket']}/{params['key']}")


def _model(aws: Aws, _: Patience, params: Params) -> Outputs:
    name = params["request"]["ModelName"]
    if model_there(aws, name) is None:
        aws.make("sagemaker", "create_model", **params["request"])
    return {"model": name}


def _drop_model(aws: Aws, _: Patience, params: Params) -> None:
    if not params["existed"]:
        remove_model(aws, params["request"]["ModelName"])


def _config(aws: Aws, _: Patience, params: Params) -> Outputs:
    name = params["request"]["EndpointConfigName"]
    if not config_there(aws, name):
        aws.make("sagemaker", "create_endpoint_config", **params["request"])
    return {"config": name}


def _drop_config(aws: Aws, _: Patience, params: Params) -> None:
    if not params["existed"]:
        remove_config(aws, params["request"]["EndpointConfigName"])


def _endpoint(aws: Aws, _: Patience, params: Params) -> Outputs:
    made = settle.create(aws, params["request"])
    return {**made, "url": url_of(aws, params["request"]["EndpointName"]), "costs": params["costs"]}


def _drop_endpoint(aws: Aws, patience: Patience, params: Params) -> None:
    """Only the one that stands on this plan's configuration: another has a name that was taken."""
    request = params["request"]
    said = settle.describe(aws, request["EndpointName"])
    if said is not None and said["EndpointConfigName"] == request["EndpointConfigName"]:
        settle.remove(aws, patience, request["EndpointName"], params["timeout_s"])


def _update(aws: Aws, _: Patience, params: Params) -> Outputs:
    made = settle.update(aws, params["request"])
    return {**made, "url": url_of(aws, params["request"]["EndpointName"]), "costs": params["costs"]}


def _update_back(aws: Aws, patience: Patience, params: Params) -> None:
    settle.back(aws, patience, params["request"], params["before"], params["timeout_s"])


def _wait(aws: Aws, patience: Patience, params: Params) -> None:
    settle.wait(aws, patience, params["name"], params["config"], params["timeout_s"])


def _scale(aws: Aws, _: Patience, params: Params) -> None:
    scaling.scale(aws, params["target"], params["policies"])


def _drop_scale(aws: Aws, _: Patience, params: Params) -> None:
    scaling.unscale(aws, params["target"])


def _unscale(aws: Aws, _: Patience, params: Params) -> None:
    for each in params["before"]:
        scaling.unscale(aws, each["target"])


def _scale_again(aws: Aws, _: Patience, params: Params) -> None:
    for each in params["before"]:
        scaling.scale(aws, each["target"], each["policies"])


def _tidy(aws: Aws, patience: Patience, params: Params) -> Outputs:
    """What cannot be removed is told and left to the deletion, which looks for it: the update itself stands."""
    left = []
    tagged = params["tagged"]
    removals: list[tuple[str, Callable[[], object]]] = [
        *((each, lambda each=each: remove_config(aws, each)) for each in params["configs"]),
        *((each, lambda each=each: remove_model(aws, each)) for each in params["models"]),
        *((each, lambda each=each: data.remove(aws, each)) for each in params["urls"]),
        ("tags", lambda: aws.call("sagemaker", "add_tags", ResourceArn=tagged["arn"], Tags=tagged["tags"])),
    ]
    for what, remove in removals:
        try:
            remove()
        except LikewiseError as error:
            left.append(what)
            patience.tell(f"{what} is left, which costs nothing while nothing runs on it: {error.cause}")
    return {"left": left}


def _remove_endpoint(aws: Aws, patience: Patience, params: Params) -> None:
    settle.remove(aws, patience, params["name"], params["timeout_s"])


def _remove_configs(aws: Aws, _: Patience, params: Params) -> None:
    for name in params["names"]:
        remove_config(aws, name)


def _remove_models(aws: Aws, _: Patience, params: Params) -> None:
    for name in params["names"]:
        remove_model(aws, name)


def _remove_data(aws: Aws, _: Patience, params: Params) -> None:
    for url in params["urls"]:
        data.remove(aws, url)


def _stays(aws: Aws, patience: Patience, params: Params) -> None:
    """Nothing to take back: it has made nothing, or is a removal, which is only ever gone on with."""


ACTIONS: dict[str, tuple[Do, Undo]] = {
    "repository": (_repository, _drop_repository),
    "image": (_image, _drop_image),
    "bucket": (_bucket, _drop_bucket),
    "data": (_data, _drop_data),
    "model": (_model, _drop_model),
    "config": (_config, _drop_config),
    "endpoint": (_endpoint, _drop_endpoint),
    "unscale": (_unscale, _scale_again),
    "update": (_update, _update_back),
    "wait": (_wait, _stays),
    "scale": (_scale, _drop_scale),
    "tidy": (_tidy, _stays),
    "remove_endpoint": (_remove_endpoint, _stays),
    "remove_configs": (_remove_configs, _stays),
    "remove_models": (_remove_models, _stays),
    "remove_data": (_remove_data, _stays),
    "transform": (jobs.make, jobs.stop),
    "job": (jobs.wait, _stays),
}


def remove_model(aws: Aws, name: str) -> None:
    """Delete it, where it is there."""
    aws.find("sagemaker", "delete_model", ModelName=name)


def remove_config(aws: Aws, name: str) -> None:
    """Delete it, where it is there."""
    aws.find("sagemaker", "delete_endpoint_config", EndpointConfigName=name)


def url_of(aws: Aws, name: str) -> str:
    """Where the endpoint answers, to requests that are signed."""
    return f"{aws.url('sagemaker-runtime')}/endpoints/{name}/invocations"
