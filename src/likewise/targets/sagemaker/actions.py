"""How each step of a plan is executed and undone; executing a step again does only what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from likewise.core.errors import LikewiseError
from likewise.targets.base import Outputs
from likewise.targets.sagemaker import data, endpoint_operations, jobs, registry, scaling
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.polling import Poller

StepParams = Mapping[str, Any]
Do = Callable[[Aws, Poller, StepParams], Outputs | None]
Undo = Callable[[Aws, Poller, StepParams], None]


def remove_model(aws: Aws, name: str) -> None:
    """Delete the model if it exists."""
    aws.attempt(("missing",), "sagemaker", "delete_model", ModelName=name)


def remove_config(aws: Aws, name: str) -> None:
    """Delete the endpoint configuration if it exists."""
    aws.attempt(("missing",), "sagemaker", "delete_endpoint_config", EndpointConfigName=name)


def url_of(aws: Aws, name: str) -> str:
    """The URL of the endpoint, for signed requests."""
    return f"{aws.url('sagemaker-runtime')}/endpoints/{name}/invocations"


# --- kinds of actions ------------------------------------------------------------------------------------------------


def _call(function: Callable[..., Any], *names: str) -> Callable[[Aws, Poller, StepParams], Any]:
    """An action that calls `function` with AWS and the named parameters of the step."""
    return lambda aws, _, params: function(aws, *(params[name] for name in names))


def _wait(function: Callable[..., None], *names: str) -> Undo:
    """Like `_call`, for a function that also takes a poller."""
    return lambda aws, poller, params: function(aws, poller, *(params[name] for name in names))


def _each(name: str, function: Callable[[Aws, str], None]) -> Do:
    """An action that calls `function` with AWS and each item of the parameter `name`."""

    def do(aws: Aws, _: Poller, params: StepParams) -> None:
        for each in params[name]:
            function(aws, each)

    return do


def _unless_existed(undo: Undo) -> Undo:
    """`undo`, unless the resource existed before the step."""
    return lambda aws, poller, params: None if params["existed"] else undo(aws, poller, params)


def _create(kind: str, key: str, output: str) -> Do:
    """Create a resource from the step's request if it does not exist; `output`: the output key for its name."""

    def do(aws: Aws, _: Poller, params: StepParams) -> Outputs:
        name = params["request"][key]
        if aws.find("sagemaker", f"describe_{kind}", **{key: name}) is None:
            aws.create("sagemaker", f"create_{kind}", **params["request"])
        return {output: name}

    return do


# --- actions ---------------------------------------------------------------------------------------------------------


def _repository(aws: Aws, _: Poller, params: StepParams) -> Outputs:
    return {"repository": registry.ensure_repository(aws, params["name"], params["tags"])}


def _image(aws: Aws, poller: Poller, params: StepParams) -> Outputs:
    address, name, tag = params["repository"], params["name"], params["tag"]
    digest = registry.find_image(aws, name, tag)
    if digest is None:
        from likewise.targets.sagemaker.image import build_and_push  # an existing image does not need likewise.images

        digest = build_and_push(aws, params, f"{address}:{tag}", poller.report)
    return {"image": f"{address}@{digest}"}


def _data(aws: Aws, _: Poller, params: StepParams) -> Outputs:
    return {"data": data.upload(aws, params["bucket"], params["key"], Path(params["folder"]), params["digest"])}


def _drop_data(aws: Aws, _: Poller, params: StepParams) -> None:
    data.remove(aws, f"s3://{params['bucket']}/{params['key']}")


def _drop_model(aws: Aws, _: Poller, params: StepParams) -> None:
    remove_model(aws, params["request"]["ModelName"])


def _drop_config(aws: Aws, _: Poller, params: StepParams) -> None:
    remove_config(aws, params["request"]["EndpointConfigName"])


def _change_endpoint(change: Callable[[Aws, StepParams], Outputs]) -> Do:
    """An action that creates or updates the endpoint; outputs: its ARN, URL and costs."""

    def do(aws: Aws, _: Poller, params: StepParams) -> Outputs:
        outputs = change(aws, params["request"])
        return {**outputs, "url": url_of(aws, params["request"]["EndpointName"]), "costs": params["costs"]}

    return do


def _drop_endpoint(aws: Aws, poller: Poller, params: StepParams) -> None:
    """Delete the endpoint if it has this plan's configuration; any other endpoint of this name is not this plan's."""
    request = params["request"]
    endpoint = endpoint_operations.describe(aws, request["EndpointName"])
    if endpoint is not None and endpoint["EndpointConfigName"] == request["EndpointConfigName"]:
        endpoint_operations.remove(aws, poller, request["EndpointName"], params["timeout_s"])


def _remove_scaling(aws: Aws, _: Poller, params: StepParams) -> None:
    for each in params["before"]:
        scaling.unscale(aws, each["target"])


def _restore_scaling(aws: Aws, _: Poller, params: StepParams) -> None:
    for each in params["before"]:
        scaling.scale(aws, each["target"], each["policies"])


def _clean_up(aws: Aws, poller: Poller, params: StepParams) -> Outputs:
    """Remove what the update replaced; a failure is reported, does not fail the update, and is left to the deletion."""
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
            poller.report(f"could not remove {what} (costs nothing while unused): {error.cause}")
    return {"left": left}


def _keep(aws: Aws, poller: Poller, params: StepParams) -> None:
    """No undo: the step creates nothing, or it is a deletion, which can only be resumed."""


ACTIONS: dict[str, tuple[Do, Undo]] = {
    "repository": (_repository, _unless_existed(_call(registry.remove_repository, "name"))),
    "image": (_image, _call(registry.remove_image, "name", "tag")),
    "bucket": (_call(data.create_bucket, "bucket"), _call(data.remove_bucket, "bucket")),
    "data": (_data, _unless_existed(_drop_data)),
    "model": (_create("model", "ModelName", "model"), _unless_existed(_drop_model)),
    "config": (_create("endpoint_config", "EndpointConfigName", "config"), _unless_existed(_drop_config)),
    "endpoint": (_change_endpoint(endpoint_operations.create), _drop_endpoint),
    "unscale": (_remove_scaling, _restore_scaling),
    "update": (
        _change_endpoint(endpoint_operations.update),
        _wait(endpoint_operations.roll_back, "request", "before", "timeout_s"),
    ),
    "wait": (_wait(endpoint_operations.wait, "name", "config", "timeout_s"), _keep),
    "scale": (_call(scaling.scale, "target", "policies"), _call(scaling.unscale, "target")),
    "tidy": (_clean_up, _keep),
    "remove_endpoint": (_wait(endpoint_operations.remove, "name", "timeout_s"), _keep),
    "remove_configs": (_each("names", remove_config), _keep),
    "remove_models": (_each("names", remove_model), _keep),
    "remove_data": (_each("urls", data.remove), _keep),
    "transform": (jobs.create, jobs.stop),
    "job": (jobs.wait, _keep),
}
