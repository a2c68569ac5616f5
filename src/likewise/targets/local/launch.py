"""Starting a supervisor, asking one that is there, ending one."""

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
from likewise.server.port import listen, url_of
from likewise.targets.local.control import Gone, ask, open_control
from likewise.targets.local.deployment_folder import Deployment, Home, ServiceSpec

STATUS_S = 10.0
SLACK_S = 30.0  # over what the service itself may take
GUARD = "-C token_file=FILE, or -C insecure=true where something in front guards it, or -C host=127.0.0.1"
TOLD = (CodeNotTrusted, EngineUnavailable, MissingExtra, WrongUsage)  # as they are; all else is a failed deployment


def status_of(home: Home) -> dict[str, Any]:
    """What the supervisor says of itself.  Raises Gone."""
    return ask(home.control, STATUS_S, "status")


def start(home: Home, asked: ServiceSpec) -> dict[str, Any]:
    """Have `asked` answer: a supervisor is started where there is none.  Returns the step's outputs.

    Raises AlreadyDeployed where another version is served here, DeployFailed, PortTaken, WrongUsage, CodeNotTrusted,
    EngineUnavailable, MissingExtra; what stood in the folder before is there then as it was.
    """
    try:
        said = status_of(home)
    except Gone:
        return _launch(home, asked)
    if ServiceSpec.from_dict(said["asked"]) != asked:
        raise AlreadyDeployed(
            f"{home.folder.name!r} is deployed here already",
            remedy=f"likewise update {home.folder.name} MODEL --to local",
        )
    return _outputs(home, _await(home, asked, home.log_size()))


def switch(home: Home, asked: ServiceSpec) -> dict[str, Any]:
    """Have `asked` answer in the place of what answers; on the same address.  Raises what `start` does."""
    try:
        said = status_of(home)
        if ServiceSpec.from_dict(said["asked"]) != asked:
            _check(ask(home.control, _patience(asked.options), "update", asked=asked.as_dict()))
        return _outputs(home, said["pid"])
    except Gone:
        return _launch(home, asked)


def stop(home: Home) -> None:
    """Drain and end all processes of the deployment; nothing where there are none.  Raises DeployFailed."""
    if not home.folder.is_dir():
        return
    deployment = home.read()
    patience_s = SLACK_S if deployment is None else _patience(deployment.asked.options)
    with suppress(Gone):  # what it has left ends by itself
        ask(home.control, patience_s, "stop")
    os.close(_claimed(home, patience_s))


def _launch(home: Home, asked: ServiceSpec) -> dict[str, Any]:
    former = home.read()
    home.make()
    with ExitStack() as opened:
        lock = _claimed(home, SLACK_S if former is None else _patience(former.asked.options))
        opened.callback(os.close, lock)
        listener = opened.enter_context(_listener(asked.options, former))
        control = opened.enter_context(open_control(home.control))
        host, port = asked.options["host"], listener.getsockname()[1]
        home.write(Deployment(asked, host, port, url_of(listener), _before(former, asked)))
        begin = home.log_size()
        try:
            _spawn(home, (listener.fileno(), control.fileno(), lock))
        except LikewiseError:
            home.write(former)
            raise
    try:
        return _outputs(home, _await(home, asked, begin))
    except LikewiseError:
        stop(home)
        home.write(former)
        raise


def _before(former: Deployment | None, asked: ServiceSpec) -> str | None:
    """The version to keep beside `asked`."""
    if former is None:
        return None
    return former.before if former.asked.model.digest == asked.model.digest else former.asked.model.digest


def _listener(options: Mapping[str, Any], former: Deployment | None) -> Any:
    """On the port that is asked for, else on the one of before where that is free, else on any."""
    host, port = options["host"], options["port"]
    guarded = bool(options["insecure"] or options["token_file"])
    try:
        if port == 0 and former is not None:
            with suppress(PortTaken):
                return listen(host, former.port, guarded=guarded)
        return listen(host, port, guarded=guarded)
    except PortTaken as error:
        raise PortTaken(error.cause, remedy="choose another: -C port=N; without it a free one is found") from error
    except WrongUsage as error:
        raise WrongUsage(error.cause, remedy=GUARD) from error


def _spawn(home: Home, handles: tuple[int, int, int]) -> None:
    command = [sys.executable, "-P", "-m", "likewise.targets.local", str(home.folder), *map(str, handles)]
    try:
        with home.log.open("ab") as log:
            subprocess.run(  # the first process ends at once, the supervisor is its child
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=handles, cwd=home.work, check=True
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise DeployFailed(
            f"no supervisor could be started: {error}", remedy="look at the machine's memory and limits of processes"
        ) from error


def _await(home: Home, asked: ServiceSpec, begin: int) -> int:
    """The supervisor's process id, once its first service is ready.  Raises why it is not."""
    try:
        _check(ask(home.control, _patience(asked.options), "wait"))
        return int(status_of(home)["pid"])
    except Gone as error:
        raise DeployFailed(
            f"its supervisor does not answer: {error}\n{home.tail(begin)}", remedy="deploy it again"
        ) from error


def _check(reply: Mapping[str, Any]) -> None:
    """Raise the failure that the reply tells of."""
    if "error" in reply:
        error = LikewiseError.from_dict(reply["error"])
        kind = type(error) if isinstance(error, TOLD) else DeployFailed
        raise kind(f"the service does not start: {error.cause}", remedy=error.remedy)


def _claimed(home: Home, patience_s: float) -> int:
    lock = home.claim(patience_s)
    if lock is None:
        raise DeployFailed(
            f"processes of {home.folder.name!r} do not end within {patience_s:g} s",
            remedy=f"find them with: fuser {home.folder / 'lock'}; end them, and run the same command again",
        )
    return lock


def _patience(options: Mapping[str, Any]) -> float:
    """Seconds that a start, a change or an end may take."""
    return float(options["start_timeout_s"] + options["drain_linger_s"] + options["drain_timeout_s"] + SLACK_S)


def _outputs(home: Home, pid: int) -> dict[str, Any]:
    deployment = home.read()
    assert deployment is not None  # noqa: S101  its supervisor has just answered
    return {
        "url": deployment.url,
        "port": deployment.port,
        "pid": pid,
        "folder": str(home.folder),
        "log": str(home.log),
    }
