"""The process that keeps a local deployment alive; `__main__` starts it.

It owns the listening socket, so that callers wait while the service is started again, and accepts nothing itself.
The standard library and modules of it alone, so that it takes little memory.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from likewise.core.backoff import Backoff
from likewise.core.errors import DeployFailed, LikewiseError
from likewise.targets.local.deployment_folder import Deployment, Home, ServiceSpec
from likewise.targets.local.service import Service

logger = logging.getLogger("likewise.local")

LOG_BYTES = 32 * 1024 * 1024
LOG_LOOK_S = 30.0
FIRST_S, LONGEST_S, STEADY_S = 0.2, 30.0, 60.0  # between starts of a service that ends
ControlReply = dict[str, Any]


class Supervisor:
    """Keeps one service up; `do` is what the control socket asks."""

    def __init__(self, home: Home, deployment: Deployment, listener: socket.socket, lock: int) -> None:
        self._home = home
        self._deployment = deployment
        self._listener = listener
        self._lock = lock
        self._service: Service | None = None  # the one that is accepted by now
        self._state = "starting"
        self._updating = False
        self._problem = ""
        self._restarts = 0
        self._began = time.monotonic()
        self._changing = asyncio.Lock()
        self._settled: asyncio.Future[ControlReply] = asyncio.get_running_loop().create_future()
        self._leaving: set[asyncio.Task[None]] = set()
        self._answering: set[asyncio.Task[Any]] = set()
        self._over = asyncio.Event()
        self._keeping = asyncio.create_task(self._keep(None))

    async def run(self, control: socket.socket) -> None:
        """Until it is stopped, or its first service did not become ready."""
        loop = asyncio.get_running_loop()
        stopping: set[asyncio.Task[ControlReply]] = set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: stopping.add(asyncio.create_task(self.stop())))
        server = await asyncio.start_unix_server(self._answer, sock=control)
        trimming = asyncio.create_task(self._keep_log_small())
        await self._over.wait()
        trimming.cancel()
        server.close()
        await asyncio.gather(*self._answering)

    async def stop(self) -> ControlReply:
        """Drain and end; who comes after the drain is refused."""
        async with self._changing:
            await self._unkept()
            if not self._settled.done():
                stopped = DeployFailed("it was stopped before it was ready", remedy="deploy it again")
                self._settled.set_result({"error": stopped.as_dict()})
            self._listener.close()
            leaving = [*self._leaving]
            if self._service is not None:
                leaving.append(asyncio.create_task(self._service.drain()))
            await asyncio.gather(*leaving)
        self._over.set()
        return {}

    async def update(self, asked: ServiceSpec) -> ControlReply:
        """Another version on the same socket; the one before it serves until this is ready, and on where it is not."""
        async with self._changing:
            self._updating = True
            try:
                fresh = await self._started(asked)
            except LikewiseError as failure:
                return {"error": failure.as_dict()}
            finally:
                self._updating = False
            before = self._deployment
            await self._unkept()
            old, self._service = self._service, fresh
            self._deployment = replace(before, asked=asked, before=before.asked.model.digest)
            self._home.write(self._deployment)
            self._keeping = asyncio.create_task(self._keep(fresh))
            if old is not None:
                await old.leave()
                task = asyncio.create_task(old.drain(told=True))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
            return {}

    def status(self) -> ControlReply:
        """How it is now. uptime_s: of the service that answers, else 0."""
        service = self._service
        return {
            "state": "updating" if self._updating else self._state,
            "problem": self._problem,
            "pid": os.getpid(),
            "service_pid": service.pid if service else None,
            "restarts": self._restarts,
            "uptime_s": round(time.monotonic() - service.ready_since, 1) if service else 0.0,
            "supervised_s": round(time.monotonic() - self._began, 1),
            "asked": self._deployment.asked.as_dict(),
        }

    async def _keep(self, service: Service | None) -> None:
        """Have one service up, again and again."""
        backoff = Backoff(FIRST_S, LONGEST_S, STEADY_S)
        while True:
            try:
                service = service or await self._started(self._deployment.asked)
            except LikewiseError as failure:
                if not self._settled.done():
                    self._give_up(failure)
                    return
                lived_s, self._problem = 0.0, str(failure)
            else:
                lived_s = await self._served(service)
            service, self._service, self._state = None, None, "failing"
            pause_s = backoff.pause_s(lived_s)
            logger.warning("%s; the next start is in %g s", self._problem, pause_s)
            await asyncio.sleep(pause_s)
            self._restarts += 1

    async def _served(self, service: Service) -> float:
        """Until the service has ended; the seconds for which it served."""
        self._service, self._state, self._problem = service, "ready", ""
        if not self._settled.done():
            self._settled.set_result({})
        self._problem = f"the service {await service.ended()}"
        return time.monotonic() - service.ready_since

    def _give_up(self, failure: LikewiseError) -> None:
        """A version that never was ready is told to whoever waits, and not tried again."""
        self._settled.set_result({"error": failure.as_dict()})
        self._state, self._problem = "failing", str(failure)
        self._over.set()

    async def _started(self, asked: ServiceSpec) -> Service:
        """A service that is ready.  Raises why it is not."""
        service = Service(self._home, asked)
        try:
            await service.start((self._listener.fileno(), self._lock))
            await service.ready()
        except OSError as error:
            raise DeployFailed(
                f"no process could be started for the service: {error}",
                remedy="look at the machine's memory and at its limits of processes and open files",
            ) from error
        except asyncio.CancelledError:
            await service.kill()
            raise
        return service

    async def _unkept(self) -> None:
        """The service is left to itself: nothing starts it again."""
        self._keeping.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeping

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  a coroutine runs in one
        self._answering.add(task)
        try:
            said = json.loads(await reader.readline())
            writer.write(json.dumps(await self.do(said)).encode() + b"\n")
            await writer.drain()
        except (ValueError, OSError) as error:
            logger.warning("a question to the supervisor was not understood, or its asker is gone: %s", error)
        finally:
            writer.close()
            self._answering.discard(task)

    async def do(self, said: dict[str, Any]) -> ControlReply:
        """The reply to one question."""
        match said["do"]:
            case "status":
                return self.status()
            case "wait":
                return await asyncio.shield(self._settled)
            case "update":
                return await self.update(ServiceSpec.from_dict(said["asked"]))
            case "stop":
                return await self.stop()
            case other:
                raise ValueError(f"no such question: {other}")

    async def _keep_log_small(self) -> None:
        while True:
            await asyncio.sleep(LOG_LOOK_S)
            trim(self._home.log, LOG_BYTES)


def trim(log: Path, limit: int) -> None:
    """Move what is in a log over `limit` bytes to `log.1`; who writes to it appends, and goes on."""
    if log.exists() and log.stat().st_size > limit:
        shutil.copyfile(log, log.with_name("log.1"))
        os.truncate(log, 0)


async def _supervise(folder: Path, handles: Sequence[int]) -> None:
    listener, control, lock = handles
    home = Home(folder)
    deployment = home.read()
    if deployment is None:
        logger.error("there is no deployment in %s", folder)
        return
    supervisor = Supervisor(home, deployment, socket.socket(fileno=listener), lock)
    await supervisor.run(socket.socket(fileno=control))


def main(arguments: Sequence[str]) -> None:
    """Keep the deployment in the folder up until told to stop."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    handles = [int(each) for each in arguments[1:]]
    for handle in handles:
        os.set_inheritable(handle, False)
    asyncio.run(_supervise(Path(arguments[0]), handles))
