"""The process that talks to Ray: one action on one cluster, told on stdin, answered by a line of JSON on stdout."""

from __future__ import annotations

import importlib
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from likewise.core.errors import DeployFailed, LikewiseError, TargetUnavailable
from likewise.core.extras import need

ACTIONS = {
    "look": "look:look",
    "status": "look:status",
    "found": "look:found",
    "ship": "store:ship",
    "unship": "store:unship",
    "run": "rollout:run",
    "take_back": "rollout:take_back",
    "stop": "rollout:stop",
}
PROBE_S = 5.0
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_HOW = "start one with `ray start --head`, or name its address: ray-serve://HOST:10001"


def main() -> None:
    """Answer on what was stdout; whatever libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asked = json.load(sys.stdin)
    try:
        connect(asked["address"])
        _say(answers, {"connected": True})
        said = {"value": _action(asked["action"])(asked["params"])}
    except LikewiseError as error:
        said = {"error": {"kind": type(error).__name__, "cause": error.cause, "remedy": error.remedy}}
    except Exception as error:
        cause = f"Ray refused: {_last_line(error)}"
        said = {"error": {"kind": DeployFailed.__name__, "cause": cause, "remedy": "mend what Ray says"}}
        logging.getLogger(__name__).exception("asked for %s", asked["action"])
    _say(answers, said)


def connect(address: str) -> None:
    """Be a driver of the cluster; TargetUnavailable, MissingExtra."""
    if "RAY_AUTH_MODE" not in os.environ and _has_token():
        os.environ["RAY_AUTH_MODE"] = "token"
    _probe(address)
    ray = need("ray", extra="ray")
    need("ray.serve", extra="ray")
    try:
        ray.init(address=address, namespace="likewise", log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        raise TargetUnavailable(f"Ray at {address} cannot be joined: {_last_line(error)}", remedy=_HOW) from error


def _has_token() -> bool:
    """Whether the user has one; Ray's command line sends it then, too."""
    return any(name in os.environ for name in _TOKENS) or (Path.home() / ".ray" / "auth_token").is_file()


def _probe(address: str) -> None:
    """TargetUnavailable where nothing listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PROBE_S).close()
    except OSError as error:
        raise TargetUnavailable(f"nothing answers at {address}: {error.strerror or error}", remedy=_HOW) from error


def _action(name: str) -> Callable[[Mapping[str, Any]], Any]:
    module, _, function = ACTIONS[name].partition(":")
    action: Callable[[Mapping[str, Any]], Any] = getattr(
        importlib.import_module(f"likewise.targets.ray.{module}"), function
    )
    return action


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line or "mismatch" in line.lower()]
    return f"{type(error).__name__}: {(named or lines or [''])[-1]}"[:600]


def _say(stream: IO[str], what: Mapping[str, Any]) -> None:
    stream.write(json.dumps(what) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
