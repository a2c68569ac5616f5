"""The process that talks to Ray: one action on one cluster, told on stdin, answered by a line of JSON on stdout."""

from __future__ import annotations

import importlib
import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any

from likewise.core.errors import DeployFailed, LikewiseError, TargetUnavailable, Unauthorized
from likewise.core.extras import need

ACTIONS = {
    "look": "look:look",
    "status": "look:status",
    "found": "look:found",
    "others": "look:others",
    "ship": "store:ship",
    "unship": "store:unship",
    "run": "rollout:run",
    "take_back": "rollout:take_back",
    "stop": "rollout:stop",
}
PROBE_S = 5.0
ASKED = ("/ray.rpc.NodeInfoGcsService/CheckAlive", "/ray.rpc.RayletDriver/ClusterInfo")  # of Ray; of its client port
_HOW = "start one with `ray start --head`, or name its address: ray-serve://HOST:10001"
_ADMISSION = "give the cluster's token: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token; RAY_AUTH_MODE=token"


def main() -> None:
    """Answer on what was stdout; whatever libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_asker, daemon=True).start()
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


def _end_with_the_asker() -> None:
    """Whoever asked holds the other end of stdin; once it is killed, another may be at the same deployment."""
    os.read(0, 1)  # not by sys.stdin, whose lock would be held when the interpreter ends
    os._exit(1)


def connect(address: str) -> None:
    """Be a driver of the cluster; TargetUnavailable, Unauthorized, MissingExtra."""
    _probe(address)
    ray = need("ray", extra="ray")
    need("ray.serve", extra="ray")
    try:
        _show_token(address)
        _join(ray, address)
    except ray.exceptions.AuthenticationError as error:
        raise Unauthorized(f"Ray at {address} asks for a token: {_last_line(error)}", remedy=_ADMISSION) from error
    except LikewiseError:
        raise
    except Exception as error:
        raise TargetUnavailable(f"Ray at {address} cannot be joined: {_last_line(error)}", remedy=_HOW) from error


def _join(ray: Any, address: str) -> None:
    """Once more where the cluster's head was too busy to start this session's server."""
    for last in (False, True):
        try:
            ray.init(address=address, namespace="likewise", log_to_driver=False, logging_level="ERROR")
            return
        except ConnectionAbortedError as error:
            if last or "Starting Ray client server failed" not in str(error):
                raise
            ray.shutdown()


def _show_token(address: str) -> None:
    """Send the user's token, unless RAY_AUTH_MODE says not to, where the cluster asks for one; Unauthorized.

    Ray itself tries for half a minute, and then says that nothing answers.
    """
    services = importlib.import_module("ray._private.services")
    at = address.removeprefix("ray://") if "://" in address else services.canonicalize_bootstrap_address(address)
    if at is None or not _refuses(at):
        return
    setup = importlib.import_module("ray._private.authentication.authentication_token_setup")
    if not setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False):
        mode = os.environ.get("RAY_AUTH_MODE")
        why = f"RAY_AUTH_MODE is {mode!r}" if mode else "there is none here"
        raise Unauthorized(f"Ray at {address} asks for a token, and {why}", remedy=_ADMISSION)
    if _refuses(at):
        raise Unauthorized(f"Ray at {address} does not know the token that it is shown", remedy=_ADMISSION)


def _refuses(at: str) -> bool:
    """Whether what listens at HOST:PORT asks for a token, and is shown none that it knows."""
    grpc = need("grpc", extra="ray")
    channel = importlib.import_module("ray._private.grpc_utils").init_grpc_channel(at)  # shows it in token mode
    with channel:
        for method in ASKED:
            try:
                channel.unary_unary(method)(b"", timeout=PROBE_S)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                    return True
    return False


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
