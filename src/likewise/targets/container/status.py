"""Converts the state of a deployment's containers to a status and a receipt."""

from __future__ import annotations

from likewise.targets.base import DeploymentState, JsonValue, Receipt, Status
from likewise.targets.container import inspection
from likewise.targets.container.inspection import ContainerState, DeploymentContainers
from likewise.targets.container.program import Program
from likewise.targets.http_client import Health, health

RESTART = "run `likewise update NAME` to restart it with its last model and options"


def status_of(program: Program, containers: DeploymentContainers) -> Status:
    """The status from the engine's state of the containers and a request to /ready."""
    listener, current = containers.listener, containers.current
    if listener is None and current is None:
        return Status("gone", about=f"{program.name} has no container of this deployment")
    if listener is None or current is None or not listener.running:
        about = f"one of its containers is missing or stopped: {RESTART}"
        return Status("failing", about=about, details=_details(containers))
    url = listener.labels[inspection.URL]
    found = health(url)
    state, about = _state(containers, current, found)
    if state == "failing":
        about = f"{about}: {' | '.join(program.log(current.name).splitlines()[-3:])}"
    if state == "ready" and current.restarts:
        end = program.last_end(current.name, current.created)
        about = f"restarts since its deployment: {current.restarts}" + (f", the last after exit {end}" if end else "")
    log = f"{program.name} logs {current.name}"
    return Status(
        state, url, about, {**_details(containers), "program": program.name, "log": log}, *(found.served or ())
    )


def receipt_of(uri: str, name: str, containers: DeploymentContainers) -> Receipt | None:
    """A receipt from the containers' labels; None if there is no version."""
    current = containers.current
    if current is None:
        return None
    url = containers.listener.labels[inspection.URL] if containers.listener else None
    outputs = {"start": {"container": current.name, "url": url}}
    return Receipt(uri, name, current.model, current.options, outputs, current.created, current.started)


def _state(containers: DeploymentContainers, current: ContainerState, found: Health) -> tuple[DeploymentState, str]:
    if len(containers.running) > 1:
        return "updating", f"{len(containers.running)} versions are running"
    if found.served is not None:
        return "ready", ""
    if current.status == "running" and current.restarts <= 1:  # more: it does not stay up
        return "restarting" if current.restarts else "starting", f"the container is running but not ready{found.reason}"
    killed = ", out of memory" if current.killed_for_memory else ""
    return "failing", f"the container is {current.status}, last exit code {current.exit_code}{killed}"


def _details(containers: DeploymentContainers) -> dict[str, JsonValue]:
    current = containers.current
    current_details: dict[str, JsonValue] = {}
    if current is not None:
        current_details = {
            "container": current.name,
            "status": current.status,
            "restarts": current.restarts,
            "memory_limit_bytes": current.memory or None,
            "image": current.image,
        }
    return {"door": containers.listener.status if containers.listener else "gone", **current_details}
