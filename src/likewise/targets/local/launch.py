"""Starts, updates and stops supervisors, and queries running ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

from likewise.core.errors import (
    AlreadyDeployed,
    CodeNotTrusted,
    DeployFailed,
    EngineUnavailable,
    LikewiseError,
    MissingExtra,
    PortTaken,
    WrongUsage,
)
from likewise.core.private_files import open_private
from likewise.server.port import listen, url_of
from likewise.targets.local.control import SupervisorUnavailable, open_control, send
from likewise.targets.local.deployment_folder import Deployment, DeploymentFolder, ServiceSpec, deployed_in

STATUS_S = 10.0
SLACK_S = 30.0  # in addition to what the service itself may take
GUARD = "add -C token_file=FILE, or -C insecure=true if a proxy guards it, or -C host=127.0.0.1"
PASSED_ON = (CodeNotTrusted, EngineUnavailable, MissingExtra, WrongUsage)  # all other errors become DeployFailed


def status_of(folder: DeploymentFolder) -> dict[str, Any]:
    """The supervisor's status.  Raises SupervisorUnavailable."""
    return send(folder.control, STATUS_S, "status")


def start(folder: DeploymentFolder, spec: ServiceSpec) -> dict[str, Any]:
    """Serve `spec`, starting a supervisor if none is running.  Returns the step's outputs.

    Raises AlreadyDeployed if another version is served here, DeployFailed, PortTaken, WrongUsage, CodeNotTrusted,
    EngineUnavailable, MissingExtra; after an error the folder is as it was before.
    """
    try:
        status = status_of(folder)
    except SupervisorUnavailable:
        return _launch(folder, spec)
    if ServiceSpec.from_dict(status["asked"]) != spec:
        raise AlreadyDeployed(
            f"{folder.name!r} is already deployed here",
            remedy=f"likewise update {folder.name} MODEL --to local",
        )
    return _outputs(folder, _await(folder, spec, folder.log_size()))


def switch(folder: DeploymentFolder, spec: ServiceSpec) -> dict[str, Any]:
    """Serve `spec` instead of the current version, at the same address.  Raises what `start` does.

    A service of the same `spec` that is not ready is started again now, so that success means that it is ready.
    """
    try:
        status = status_of(folder)
        if ServiceSpec.from_dict(status["asked"]) != spec or status["state"] in ("failing", "restarting"):
            document = spec.as_dict()
            _check(send(folder.control, _timeout_s(spec.options), "update", asked=document))  # codespell:ignore asked
        return _outputs(folder, status["pid"])
    except SupervisorUnavailable:
        return _launch(folder, spec)


def stop(folder: DeploymentFolder) -> None:
    """Drain and stop all processes of the deployment, if there are any.  Raises DeployFailed."""
    if not folder.path.is_dir():
        return
    deployment = folder.read()
    timeout_s = SLACK_S if deployment is None else _timeout_s(deployment.spec.options)
    with suppress(SupervisorUnavailable):  # without a supervisor, its services exit by themselves
        send(folder.control, timeout_s, "stop")
    os.close(_claimed(folder, timeout_s))


def _launch(folder: DeploymentFolder, spec: ServiceSpec) -> dict[str, Any]:
    former = folder.read()
    folder.create()
    with ExitStack() as stack:
        lock = _claimed(folder, SLACK_S if former is None else _timeout_s(former.spec.options))
        stack.callback(os.close, lock)
        listener = stack.enter_context(_listener(folder, spec.options, former))
        control = stack.enter_context(open_control(folder.control))
        host, port = spec.options["host"], listener.getsockname()[1]
        folder.write(Deployment(spec, host, port, url_of(listener), None if former is None else former.before_of(spec)))
        log_start = folder.log_size()
        try:
            _spawn(folder, (listener.fileno(), control.fileno(), lock))
        except LikewiseError:
            folder.write(former)
            raise
    try:
        return _outputs(folder, _await(folder, spec, log_start))
    except LikewiseError:
        stop(folder)
        folder.write(former)
        raise


def _listener(folder: DeploymentFolder, options: Mapping[str, Any], former: Deployment | None) -> Any:
    """A listener on the requested port, else on the former port if it is free, else on any free port."""
    host, port = options["host"], options["port"]
    guarded = bool(options["insecure"] or options["token_file"])
    try:
        if port == 0 and former is not None:
            with suppress(PortTaken):
                return listen(host, former.port, guarded=guarded)
        return listen(host, port, guarded=guarded)
    except PortTaken as error:
        remedy = "stop that process; an update cannot change the port: to do that, delete the deployment"
        if former is None:
            remedy = "set another port with -C port=N, or omit it to use a free one"
        raise PortTaken(f"{error.cause}{_owner(folder, port)}", remedy=remedy) from error
    except WrongUsage as error:
        raise WrongUsage(error.cause, remedy=GUARD) from error


def _owner(folder: DeploymentFolder, port: int) -> str:
    """`, for the deployment NAME` if another running deployment has the port; else empty."""
    for other in deployed_in(folder.path.parent):
        with suppress(SupervisorUnavailable, LookupError, TypeError, ValueError):  # it is stopped, or damaged
            found = other.read()
            if found is not None and found.port == port and other.name != folder.name:
                status_of(other)
                return f", for the deployment {other.name!r}"
    return ""


def _spawn(folder: DeploymentFolder, handles: tuple[int, int, int]) -> None:
    command = [sys.executable, "-P", "-m", "likewise.targets.local", str(folder.path), *map(str, handles)]
    try:
        with os.fdopen(open_private(folder.log, os.O_WRONLY | os.O_APPEND), "ab") as log:
            subprocess.run(  # this process exits immediately, the supervisor is its child
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=handles, cwd=folder.work, check=True
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise DeployFailed(
            f"the supervisor could not be started: {error}", remedy="check the machine's memory and process limits"
        ) from error


def _await(folder: DeploymentFolder, spec: ServiceSpec, log_start: int) -> int:
    """Wait until the first service is ready; returns the supervisor's process id.  Raises the service's failure."""
    try:
        _check(send(folder.control, _timeout_s(spec.options), "wait"))
        return int(status_of(folder)["pid"])
    except SupervisorUnavailable as error:
        raise DeployFailed(
            f"the supervisor does not respond: {error}\nlast log lines:\n{folder.tail(log_start)}",
            remedy="run the same command again",
        ) from error


def _check(reply: Mapping[str, Any]) -> None:
    """Raise the error that the reply contains, if any."""
    if "error" in reply:
        error = LikewiseError.from_dict(reply["error"])
        kind = type(error) if isinstance(error, PASSED_ON) else DeployFailed
        raise kind(f"the service failed to start: {error.cause}", remedy=error.remedy)


def _claimed(folder: DeploymentFolder, timeout_s: float) -> int:
    lock = folder.claim(timeout_s)
    if lock is None:
        raise DeployFailed(
            f"processes of {folder.name!r} did not exit within {timeout_s:g} s",
            remedy=f"find them with: fuser {folder.path / 'lock'}; stop them, then run the same command again",
        )
    return lock


def _timeout_s(options: Mapping[str, Any]) -> float:
    """Seconds that a start, an update or a stop may take."""
    return float(options["start_timeout_s"] + options["drain_linger_s"] + options["drain_timeout_s"] + SLACK_S)


def _outputs(folder: DeploymentFolder, pid: int) -> dict[str, Any]:
    deployment = folder.read()
    assert deployment is not None  # noqa: S101  its supervisor has just responded
    return {
        "url": deployment.url,
        "port": deployment.port,
        "pid": pid,
        "folder": str(folder.path),
        "log": str(folder.log),
    }
