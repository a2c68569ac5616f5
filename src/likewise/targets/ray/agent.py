"""The process that talks to Ray: it joins one cluster, and answers requests for actions there, as JSON on a pipe."""

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

ACTIONS = {
    "look": "look:look",
    "status": "look:status",
    "found": "look:found",
    "others": "look:others",
    "ship": "store:ship",
    "unship": "store:collect",
    "run": "rollout:run",
    "take_back": "rollout:take_back",
    "stop": "rollout:stop",
}
IDLE_S = 20.0  # without a request; the cluster may be another one by then
LEAVE_S = 1.0  # to leave the cluster
PROBE_S = 5.0
ASKED = ("/ray.rpc.NodeInfoGcsService/CheckAlive", "/ray.rpc.RayletDriver/ClusterInfo")  # of Ray; of its client port
HOW_TO_START = "start one with `ray start --head`, or name its address: ray-serve://HOST:10001"
_ADMISSION = "give the cluster's token: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token; RAY_AUTH_MODE=token"


def main(address: str, descriptor: int) -> None:
    """Answer until the caller ends or is silent for IDLE_S, or the cluster is lost."""
    caller = Caller(descriptor)
    try:
        at = connect(address)
        caller.answer(value=None)
        while request := caller.next_request():
            _probe(at, address)
            try:
                caller.answer(value=perform(request["action"], request["params"]))
            except LikewiseError as error:
                caller.refuse(error)
        sys.modules["ray"].shutdown()
    except LikewiseError as error:
        caller.refuse(error)
    except Exception as error:
        logging.getLogger(__name__).exception("the agent ends")
        caller.refuse(DeployFailed(f"Ray refused: {_last_line(error)}", remedy="mend what Ray says"))
    os._exit(0)


class Caller:
    """Whoever holds the other end of the pipe; the process ends with it, in the midst of an action too.

    Another caller may be at the same deployment once this one has been killed.
    """

    def __init__(self, descriptor: int) -> None:
        self._pipe = Connection(descriptor)
        self._requests: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._waits = False
        threading.Thread(target=self._read, daemon=True).start()

    def next_request(self) -> dict[str, Any] | None:
        """None where there is none for IDLE_S, or will be none."""
        self._waits = True
        try:
            return self._requests.get(timeout=IDLE_S)
        except Empty:
            return None
        finally:
            self._waits = False

    def answer(self, **said: Any) -> None:
        """Send it."""
        self._pipe.send_bytes(json.dumps(said).encode())

    def refuse(self, error: LikewiseError) -> None:
        """Send it."""
        self.answer(error=error.as_dict())

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self._requests.put(json.loads(self._pipe.recv_bytes()))
        if self._waits:
            self._requests.put(None)
            time.sleep(LEAVE_S)
        os._exit(1)


def perform(action: str, params: Mapping[str, Any]) -> Any:
    """What the action gives."""
    importlib.import_module("ray.serve.context")._set_global_client(None)  # Serve may have been started anew
    return pkgutil.resolve_name(f"likewise.targets.ray.{ACTIONS[action]}")(params)


def connect(address: str) -> str:
    """Be a driver of the cluster, and return the HOST:PORT that answers; TargetUnavailable, Unauthorized, MissingExtra.

    The order is that of the time that each takes.
    """
    _probe(address.removeprefix("ray://"), address)
    ray = need("ray", extra="ray")
    try:
        services = importlib.import_module("ray._private.services")
        named = "://" in address
        at: str = address.removeprefix("ray://") if named else services.canonicalize_bootstrap_address_or_die(address)
        _show_token(at, address)
        need("ray.serve", extra="ray")
        _join(ray, address)
    except ray.exceptions.AuthenticationError as error:
        raise Unauthorized(f"Ray at {address} asks for a token: {_last_line(error)}", remedy=_ADMISSION) from error
    except LikewiseError:
        raise
    except Exception as error:
        raise TargetUnavailable(
            f"Ray at {address} cannot be joined: {_last_line(error)}", remedy=HOW_TO_START
        ) from error
    return at


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


def _show_token(at: str, address: str) -> None:
    """Send the user's token, unless RAY_AUTH_MODE says not to, where the cluster asks for one; Unauthorized.

    Ray itself tries for half a minute, and then says that nothing answers.
    """
    if not _refuses(at):
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


def _probe(at: str, address: str) -> None:
    """TargetUnavailable where nothing listens at HOST:PORT."""
    host, _, port = at.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PROBE_S).close()
    except OSError as error:
        raise TargetUnavailable(
            f"nothing answers at {address}: {error.strerror or error}", remedy=HOW_TO_START
        ) from error


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line or "mismatch" in line.lower()]
    return f"{type(error).__name__}: {(named or lines or [''])[-1]}"[:600]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
