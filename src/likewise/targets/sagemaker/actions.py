"""Each step of a plan, done and undone: it looks first, and does what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from likewise.core.errors import LikewiseError
from likewise.core.spec import ModelSpec
from likewise.targets.base import Outputs
from likewise.targets.sagemaker import data, endpoint_operations, jobs, registry, scaling
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.polling import Patience

StepParams = Mapping[str, Any]
Do = Callable[[Aws, Patience, StepParams], Outputs | None]
Undo = Callable[[Aws, Patience, StepParams], None]


def remove_model(aws: Aws, name: str) -> None:
    """Delete it, where it is there."""
    aws.find("sagemaker", "delete_model", ModelName=name)


def remove_config(aws: Aws, name: str) -> None:
    """Delete it, where it is there."""
    aws.find("sagemaker", "delete_endpoint_config", EndpointConfigName=name)


def url_of(aws: Aws, name: str) -> str:
    """Where the endpoint answers, to requests that are signed."""
    return f"{aws.url('sagemaker-runtime')}/endpoints/{name}/invocations"


# --- kinds of actions ------------------------------------------------------------------------------------------------


def _call(function: Callable[..., Any], *names: str) -> Callable[[Aws, Patience, StepParams], Any]:
    """`function`, with AWS and these of the step's parameters."""
    return lambda aws, _, params: function(aws, *(params[name] for name in names))


def _wait(function: Callable[..., None], *names: str) -> Undo:
    """The same, of a function that waits."""
    return lambda aws, patience, params: function(aws, patience, *(params[name] for name in names))


def _each(name: str, function: Callable[[Aws, str], None]) -> Do:
    """`function`, with AWS and each member of this parameter."""

    def do(aws: Aws, _: Patience, params: StepParams) -> None:
        for each in params[name]:
            function(aws, each)

    return do


def _unless_existed(undo: Undo) -> Undo:
    """`undo`, where the step has made what it takes back."""
    return lambda aws, patience, params: None if params["existed"] else undo(aws, patience, params)


def _create(kind: str, key: str, output: str) -> Do:
    """Send the step's request, unless what it names is there; the output is its name."""

    def do(aws: Aws, _: Patience, params: StepParams) -> Outputs:
        name = params["request"][key]
        if aws.find("sagemaker", f"describe_{kind}", **{key: name}) is None:
            aws.make("sagemaker", f"create_{kind}", **params["request"])
        return {output: name}

    return do


# --- actions ---------------------------------------------------------------------------------------------------------


def _repository(aws: Aws, _: Patience, params: StepParams) -> Outputs:
    return {"repository": registry.make_repository(aws, params["name"], params["tags"])}


def _image(aws: Aws, patience: Patience, params: StepParams) -> Outputs:
    address, name, tag = params["repository"], params["name"], params["tag"]
    digest = registry.find_image(aws, name, tag)
    if digest is None:
        from likewise.targets.sagemaker.image import make_and_push  # who names an image needs no room for it

        model, platform, base = ModelSpec.from_dict(params["model"]), params["platform"], params["base"]
        digest = make_and_push(aws, model, platform, base, f"{address}:{tag}", patience.tell)
    return {"image": f"{address}@{digest}"}


def _data(aws: Aws, _: Patience, params: StepParams) -> Outputs:
    return {"data": data.send(aws, params["bucket"], params["key"], Path(params["folder"]), params["digest"])}


def _drop_data(aws: Aws, _: Patience, params: StepParams) -> None:
    data.remove(aws, f"s3://{params['bucket']}/{params['key']}")


def _drop_model(aws: Aws, _: Patience, params: StepParams) -> None:
    remove_model(aws, params["request"]["ModelName"])


def _drop_config(aws: Aws, _: Patience, params: StepParams) -> None:
    remove_config(aws, params["request"]["EndpointConfigName"])


def _settle(change: Callable[[Aws, StepParams], Outputs]) -> Do:
    """CreateEndpoint or UpdateEndpoint."""

    def do(aws: Aws, _: Patience, params: StepParams) -> Outputs:
        made = change(aws, params["request"])
        return {**made, "url": url_of(aws, params["request"]["EndpointName"]), "costs": params["costs"]}

    return do


def _drop_endpoint(aws: Aws, patience: Patience, params: StepParams) -> None:
    """Only the one that stands on this plan's configuration: another has a name that was taken."""
    request = params["request"]
    said = endpoint_operations.describe(aws, request["EndpointName"])
    if said is not None and said["EndpointConfigName"] == request["EndpointConfigName"]:
        endpoint_operations.remove(aws, patience, request["EndpointName"], params["timeout_s"])


def _unscale(aws: Aws, _: Patience, params: StepParams) -> None:
    for each in params["before"]:
        scaling.unscale(aws, each["target"])


def _scale_again(aws: Aws, _: Patience, params: StepParams) -> None:
    for each in params["before"]:
        scaling.scale(aws, each["target"], each["policies"])


def _tidy(aws: Aws, patience: Patience, params: StepParams) -> Outputs:
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


def _stays(aws: Aws, patience: Patience, params: StepParams) -> None:
    """Nothing to take back: it has made nothing, or is a removal, which is only ever gone on with."""


ACTIONS: dict[str, tuple[Do, Undo]] = {
    "repository": (_repository, _unless_existed(_call(registry.remove_repository, "name"))),
    "image": (_image, _call(registry.remove_image, "name", "tag")),
    "bucket": (_call(data.make_bucket, "bucket"), _call(data.remove_bucket, "bucket")),
    "data": (_data, _unless_existed(_drop_data)),
    "model": (_create("model", "ModelName", "model"), _unless_existed(_drop_model)),
    "config": (_create("endpoint_config", "EndpointConfigName", "config"), _unless_existed(_drop_config)),
    "endpoint": (_settle(endpoint_operations.create), _drop_endpoint),
    "unscale": (_unscale, _scale_again),
    "update": (_settle(endpoint_operations.update), _wait(endpoint_operations.back, "request", "before", "timeout_s")),
    "wait": (_wait(endpoint_operations.wait, "name", "config", "timeout_s"), _stays),
    "scale": (_call(scaling.scale, "target", "policies"), _call(scaling.unscale, "target")),
    "tidy": (_tidy, _stays),
    "remove_endpoint": (_wait(endpoint_operations.remove, "name", "timeout_s"), _stays),
    "remove_configs": (_each("names", remove_config), _stays),
    "remove_models": (_each("names", remove_model), _stays),
    "remove_data": (_each("urls", data.remove), _stays),
    "transform": (jobs.make, jobs.stop),
    "job": (jobs.wait, _stays),
}
