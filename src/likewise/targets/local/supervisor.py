"""The supervisor process, which keeps a local deployment running; `__main__` starts it.

It owns the listening socket, so that clients wait while the service is restarted. It accepts no connections itself,
except to answer them with 503 when a restart has failed.
Imports only the standard library and modules that do the same, to keep its memory small.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from likewise.core.backoff import Backoff
from likewise.core.errors import DeployFailed, LikewiseError
from likewise.core.json_log import log_to_stderr
from likewise.core.private_files import open_private
from likewise.targets.local.deployment_folder import Deployment, DeploymentFolder, ServiceSpec
from likewise.targets.local.service import Service
from likewise.targets.local.unavailable import unavailable

logger = logging.getLogger("likewise.local")

LOG_BYTES = 32 * 1024 * 1024  # the log is moved to `log.1` when it exceeds this size
LOG_POLL_S = 30.0  # interval for checking the log's size
FIRST_S, LONGEST_S, STEADY_S = 0.2, 30.0, 60.0  # pauses between restarts: first, longest; reset after STEADY_S uptime
ControlReply = dict[str, Any]


class Supervisor:
    """Keeps one service running; `do` executes the commands of the control socket."""

    def __init__(self, folder: DeploymentFolder, deployment: Deployment, listener: socket.socket, lock: int) -> None:
        self._folder = folder
        self._deployment = deployment
        self._listener = listener
        self._lock = lock
        self._service: Service | None = None  # the current service, None while it is being restarted
        self._state = "starting"
        self._updating = False
        self._problem = ""
        self._restarts = 0
        self._started_at = time.monotonic()
        self._changing = asyncio.Lock()
        self._first_start: asyncio.Future[ControlReply] = asyncio.get_running_loop().create_future()
        self._draining: set[asyncio.Task[None]] = set()
        self._replying: set[asyncio.Task[Any]] = set()
        self._stopped = asyncio.Event()
        self._restarting = asyncio.create_task(self._keep_running(None))

    async def run(self, control: socket.socket) -> None:
        """Supervise until stopped, or until the first service fails to become ready."""
        loop = asyncio.get_running_loop()
        stopping: set[asyncio.Task[ControlReply]] = set()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, lambda: stopping.add(asyncio.create_task(self.stop())))
        server = await asyncio.start_unix_server(self._reply, sock=control)
        trimming = asyncio.create_task(self._trim_log())
        await self._stopped.wait()
        trimming.cancel()
        server.close()
        await asyncio.gather(*self._replying)

    async def stop(self) -> ControlReply:
        """Close the listener, drain all services and stop."""
        logger.info("stopping")
        async with self._changing:
            await self._stop_restarting()
            if not self._first_start.done():
                stopped = DeployFailed("the deployment was stopped before it was ready", remedy="deploy it again")
                self._first_start.set_result({"error": stopped.as_dict()})
            self._listener.close()
            draining = [*self._draining]
            if self._service is not None:
                draining.append(asyncio.create_task(self._service.drain()))
            await asyncio.gather(*draining)
        self._stopped.set()
        return {}

    async def update(self, spec: ServiceSpec, sender: asyncio.StreamReader) -> ControlReply:
        """Start another version on the same socket; the current one serves until that is ready, or if it fails.

        sender: if it disconnects before the version is ready, as after Ctrl-C, the update is given up.
        """
        async with self._changing:
            self._updating = True
            try:
                new = await _unless_gone(self._start(spec), sender)
            except LikewiseError as failure:
                return {"error": failure.as_dict()}
            finally:
                self._updating = False
            before = self._deployment
            await self._stop_restarting()
            old, self._service = self._service, new
            self._deployment = replace(before, spec=spec, before=before.before_of(spec))
            self._folder.write(self._deployment)
            self._restarting = asyncio.create_task(self._keep_running(new))
            if old is not None:
                await old.hand_over()
                task = asyncio.create_task(old.drain(signaled=True))
                self._draining.add(task)
                task.add_done_callback(self._draining.discard)
            return {}

    def status(self) -> ControlReply:
        """The current state.  uptime_s: of the current service, 0 without one."""
        service = self._service
        return {
            "state": "updating" if self._updating else self._state,
            "problem": self._problem,
            "pid": os.getpid(),
            "service_pid": service.pid if service else None,
            "restarts": self._restarts,
            "uptime_s": round(time.monotonic() - service.ready_since, 1) if service else 0.0,
            "supervised_s": round(time.monotonic() - self._started_at, 1),
            "asked": self._deployment.spec.as_dict(),
        }

    async def _keep_running(self, service: Service | None) -> None:
        """Restart the service, with pauses, whenever it exits.  service: the running one, None to start one."""
        backoff = Backoff(FIRST_S, LONGEST_S, STEADY_S)
        async with AsyncExitStack() as refusing:  # requests, after a restart that failed
            while True:
                try:
                    service = service or await self._start(self._deployment.spec)
                except LikewiseError as failure:
                    if not self._first_start.done():
                        self._give_up(failure)
                        return
                    if self._state != "failing":
                        await refusing.enter_async_context(unavailable(self._listener, self._folder.name))
                    lived_s, self._problem, self._state = 0.0, str(failure), "failing"
                else:
                    await refusing.aclose()
                    lived_s = await self._watch(service)
                    self._state = "restarting"
                service = self._service = None
                pause_s = backoff.pause_s(lived_s)
                logger.warning("%s; restarting in %g s", self._problem, pause_s)
                await asyncio.sleep(pause_s)
                self._restarts += 1

    async def _watch(self, service: Service) -> float:
        """Wait until the service exits; returns the seconds for which it served."""
        self._service, self._state, self._problem = service, "ready", ""
        if not self._first_start.done():
            self._first_start.set_result({})
        self._problem = f"the service {await service.exited()}"
        return time.monotonic() - service.ready_since

    def _give_up(self, failure: LikewiseError) -> None:
        """Report the failure of the first start to waiting clients, and stop without a retry."""
        self._first_start.set_result({"error": failure.as_dict()})
        self._state, self._problem = "failing", str(failure)
        self._stopped.set()

    async def _start(self, spec: ServiceSpec) -> Service:
        """A service that is ready.  Raises LikewiseError if it fails to start."""
        service, version = Service(self._folder, spec), spec.model.key[:19]
        logger.info("starting %s", version)
        try:
            await service.start((self._listener.fileno(), self._lock))
            await service.ready()
        except OSError as error:
            raise DeployFailed(
                f"the service process could not be started: {error}",
                remedy="check the machine's memory and its limits on processes and open files",
            ) from error
        except asyncio.CancelledError:
            await service.kill()
            raise
        except LikewiseError as error:
            logger.error("%s did not start: %s", version, error.cause.partition("\n")[0])  # the log has the rest
            raise
        logger.info("%s is ready at %s, process %d", version, self._deployment.url, service.pid)
        return service

    async def _stop_restarting(self) -> None:
        """Stop restarting the current service."""
        self._restarting.cancel()
        with suppress(asyncio.CancelledError):
            await self._restarting

    async def _reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to the control socket."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  a coroutine runs in one
        self._replying.add(task)
        try:
            command = json.loads(await reader.readline())
            writer.write(json.dumps(await self.do(command, reader)).encode() + b"\n")
            await writer.drain()
        except (ValueError, OSError) as error:
            logger.warning("invalid command on the control socket, or its sender disconnected: %s", error)
        finally:
            writer.close()
            self._replying.discard(task)

    async def do(self, command: dict[str, Any], sender: asyncio.StreamReader) -> ControlReply:
        """Execute one command of the control socket; returns the reply."""
        match command["do"]:
            case "status":
                return self.status()
            case "wait":
                return await asyncio.shield(self._first_start)
            case "update":
                return await self.update(ServiceSpec.from_dict(command["asked"]), sender)
            case "stop":
                return await self.stop()
            case other:
                raise ValueError(f"unknown command: {other}")

    async def _trim_log(self) -> None:
        """Keep the log's size limited."""
        while True:
            await asyncio.sleep(LOG_POLL_S)
            trim(self._folder.log, LOG_BYTES)


async def _unless_gone(starting: Coroutine[Any, Any, Service], sender: asyncio.StreamReader) -> Service:
    """The started service; cancels the start and raises DeployFailed if the sender of the command disconnects."""
    start, gone = asyncio.create_task(starting), asyncio.create_task(sender.read(1))
    try:
        await asyncio.wait((start, gone), return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            return await start
        logger.warning("the update is given up, because its command has ended")
        raise DeployFailed("the update was interrupted", remedy="run the same command again")
    finally:
        for task in (start, gone):
            task.cancel()
        await asyncio.wait((start, gone))


def trim(log: Path, limit: int) -> None:
    """If the log exceeds `limit` bytes, copy it to `log.1` and truncate it; its writers must use append mode."""
    if log.exists() and log.stat().st_size > limit:
        former = log.with_name("log.1")
        os.close(open_private(former))
        shutil.copyfile(log, former)
        os.truncate(log, 0)


async def _supervise(path: Path, handles: Sequence[int]) -> None:
    listener, control, lock = handles
    folder = DeploymentFolder(path)
    deployment = folder.read()
    if deployment is None:
        logger.error("there is no deployment in %s", path)
        return
    supervisor = Supervisor(folder, deployment, socket.socket(fileno=listener), lock)
    await supervisor.run(socket.socket(fileno=control))


def main(arguments: Sequence[str]) -> None:
    """Supervise the deployment until stopped.  arguments: FOLDER LISTENER CONTROL LOCK, see `__main__`."""
    log_to_stderr(logging.INFO)
    handles = [int(each) for each in arguments[1:]]
    for handle in handles:
        os.set_inheritable(handle, False)
    asyncio.run(_supervise(Path(arguments[0]), handles))
