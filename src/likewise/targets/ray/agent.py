"""The agent process: connects to one Ray cluster and executes actions there, requested as JSON on a pipe."""

from __future__ import annotations

import importlib
import json
import logging
import os
import pkgutil
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

from likewise.core.errors import DeployFailed, LikewiseError, TargetUnavailable, Unauthorized
from likewise.core.extras import need

# action, as it is named in requests, to the function that executes it
ACTIONS = {
    "look": "rollout:look",
    "status": "inspection:status",
    "found": "inspection:deployments",
    "metrics": "observation:metrics_pages",
    "logs": "observation:log_lines",
    "others": "inspection:other_applications",
    "ship": "store:ship",
    "unship": "store:collect_garbage",
    "run": "rollout:run",
    "take_back": "rollout:roll_back",
    "stop": "rollout:stop",
}
IDLE_S = 20.0  # after which an idle agent exits, as the address may belong to another cluster by then
LEAVE_S = 1.0  # for disconnecting from the cluster
PROBE_S = 5.0
AUTH_PROBES = ("/ray.rpc.NodeInfoGcsService/CheckAlive", "/ray.rpc.RayletDriver/ClusterInfo")  # GCS port; client port
HOW_TO_START = "start one with `ray start --head`, or specify its address: ray-serve://HOST:10001"
_AUTH_REMEDY = "set the cluster's token: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token; RAY_AUTH_MODE=token"


def main(address: str, descriptor: int) -> None:
    """Serve requests until the caller exits or sends none for IDLE_S, or the cluster cannot be reached any more."""
    caller = Caller(descriptor)
    try:
        endpoint = connect(address)
        caller.respond(value=None)
        while request := caller.next_request():
            _probe(endpoint, address)
            try:
                caller.respond(value=perform(request["action"], request["params"]))
            except LikewiseError as error:
                caller.respond_error(error)
        sys.modules["ray"].shutdown()
    except LikewiseError as error:
        caller.respond_error(error)
    except Exception as error:
        logging.getLogger(__name__).exception("the agent stops")
        caller.respond_error(
            DeployFailed(
                f"Ray failed: {_last_line(error)}",
                remedy="run the same command again; if it fails again, fix what Ray reports",
            )
        )
    os._exit(0)


class Caller:
    """The process at the other end of the pipe; when it exits, the agent exits too, even during an action.

    Otherwise, after a caller was killed, its agent and that of the next command could change the same deployment.
    """

    def __init__(self, descriptor: int) -> None:
        self._pipe = Connection(descriptor)
        self._requests: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._idle = False
        threading.Thread(target=self._read, daemon=True).start()

    def next_request(self) -> dict[str, Any] | None:
        """The next request; None if there is none for IDLE_S, or the pipe is closed."""
        self._idle = True
        try:
            return self._requests.get(timeout=IDLE_S)
        except Empty:
            return None
        finally:
            self._idle = False

    def respond(self, **message: Any) -> None:
        """Send `message` as JSON: `value=…` for a result, `error=…` for an error."""
        self._pipe.send_bytes(json.dumps(message).encode())

    def respond_error(self, error: LikewiseError) -> None:
        """Send an error as the response."""
        self.respond(error=error.as_dict())

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self._requests.put(json.loads(self._pipe.recv_bytes()))
        if self._idle:
            self._requests.put(None)
            time.sleep(LEAVE_S)
        os._exit(1)


def perform(action: str, params: Mapping[str, Any]) -> Any:
    """Execute the action and return its JSON-compatible result."""
    importlib.import_module("ray.serve.context")._set_global_client(None)  # Serve may have been restarted
    return pkgutil.resolve_name(f"likewise.targets.ray.{ACTIONS[action]}")(params)


def connect(address: str) -> str:
    """Connect to the cluster as a driver, and return the HOST:PORT that accepts connections.

    Raises TargetUnavailable, Unauthorized, MissingExtra.  Cheap checks come first.
    """
    _probe(address.removeprefix("ray://"), address)
    ray = need("ray", extra="ray")
    try:
        services = importlib.import_module("ray._private.services")
        named = "://" in address
        bootstrap = services.canonicalize_bootstrap_address_or_die
        endpoint: str = address.removeprefix("ray://") if named else bootstrap(address)
        _authenticate(endpoint, address)
        need("ray.serve", extra="ray")
        _join(ray, address)
    except ray.exceptions.AuthenticationError as error:
        raise Unauthorized(f"Ray at {address} requires a token: {_last_line(error)}", remedy=_AUTH_REMEDY) from error
    except LikewiseError:
        raise
    except Exception as error:
        raise TargetUnavailable(
            f"no connection to Ray at {address}: {_last_line(error)}", remedy=HOW_TO_START
        ) from error
    return endpoint


def _join(ray: Any, address: str) -> None:
    """Call `ray.init`; retried once if a busy head node, or one whose client server has just died, aborts it."""
    for last in (False, True):
        try:
            ray.init(address=address, namespace="likewise", log_to_driver=False, logging_level="ERROR")
            return
        except ConnectionAbortedError:
            if last:
                raise
            ray.shutdown()


def _authenticate(endpoint: str, address: str) -> None:
    """Enable the user's token if the cluster requires one, unless RAY_AUTH_MODE disables it; raises Unauthorized.

    Ray itself would retry for half a minute, and then report that nothing is listening.
    """
    if not _rejects(endpoint):
        return
    setup = importlib.import_module("ray._private.authentication.authentication_token_setup")
    if not setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False):
        mode = os.environ.get("RAY_AUTH_MODE")
        reason = f"RAY_AUTH_MODE is {mode!r}" if mode else "no token is configured"
        raise Unauthorized(f"Ray at {address} requires a token, but {reason}", remedy=_AUTH_REMEDY)
    if _rejects(endpoint):
        raise Unauthorized(f"Ray at {address} rejects the configured token", remedy=_AUTH_REMEDY)


def _rejects(endpoint: str) -> bool:
    """Whether the server at HOST:PORT requires a token and rejects the current one, if any."""
    grpc = need("grpc", extra="ray")
    # in token mode the channel sends the token
    channel = importlib.import_module("ray._private.grpc_utils").init_grpc_channel(endpoint)
    with channel:
        for method in AUTH_PROBES:
            try:
                channel.unary_unary(method)(b"", timeout=PROBE_S)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                    return True
    return False


def _probe(endpoint: str, address: str) -> None:
    """Raise TargetUnavailable if nothing is listening at HOST:PORT."""
    host, _, port = endpoint.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PROBE_S).close()
    except OSError as error:
        raise TargetUnavailable(
            f"nothing is listening at {address}: {error.strerror or error}", remedy=HOW_TO_START
        ) from error


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line or "mismatch" in line.lower()]
    return f"{type(error).__name__}: {(named or lines or [''])[-1]}"[:600]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
