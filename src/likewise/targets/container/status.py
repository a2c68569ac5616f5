"""What stands there in the words that all targets have: a status, a receipt."""

from __future__ import annotations

from likewise.targets.base import DeploymentState, JsonValue, Receipt, Status
from likewise.targets.container import inspection
from likewise.targets.container.inspection import ContainerState, Standing
from likewise.targets.container.program import Program
from likewise.targets.http_client import served_digest

MEND = "likewise update NAME starts it again with its last model and options"


def status_of(program: Program, standing: Standing) -> Status:
    """As the engine says, and as HTTP answers."""
    door, current = standing.door, standing.current
    if door is None and current is None:
        return Status("gone", about=f"{program.name} has no container of it")
    if door is None or current is None or not door.running:
        return Status("failing", about=f"a part of it is gone or stopped: {MEND}", details=_details(standing))
    url = door.labels[inspection.URL]
    digest = served_digest(url, "/ready")
    state, about = _state(standing, current, digest)
    if state == "failing":
        about = f"{about}: {' | '.join(program.log(current.name).splitlines()[-3:])}"
    log = f"{program.name} logs {current.name}"
    return Status(state, url, about, {**_details(standing), "engine": program.name, "log": log}, digest)


def receipt_of(uri: str, name: str, standing: Standing) -> Receipt | None:
    """As the labels tell; None where no version stands."""
    current = standing.current
    if current is None:
        return None
    url = standing.door.labels[inspection.URL] if standing.door else None
    outputs = {"start": {"container": current.name, "url": url}}
    return Receipt(uri, name, current.model, current.options, outputs, current.created, current.started)


def _state(standing: Standing, current: ContainerState, digest: str | None) -> tuple[DeploymentState, str]:
    if len(standing.running) > 1:
        return "updating", f"{len(standing.running)} versions answer"
    if digest is not None:
        return "ready", ""
    if current.status == "running" and not current.restarts:
        return "starting", "the container runs, and is not ready"
    killed = ", killed for want of memory" if current.killed_for_memory else ""
    return "failing", f"the container is {current.status}, last ended with {current.exit_code}{killed}"


def _details(standing: Standing) -> dict[str, JsonValue]:
    current = standing.current
    of_current: dict[str, JsonValue] = {}
    if current is not None:
        of_current = {
            "container": current.name,
            "status": current.status,
            "restarts": current.restarts,
            "memory_limit_bytes": current.memory or None,
            "image": current.image,
        }
    return {"door": standing.door.status if standing.door else "gone", **of_current}
