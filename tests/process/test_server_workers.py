"""`likewise serve --workers 2` with a small model: effects of killed workers, and cleanup at the end."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from tests.support.processes import LIKEWISE, PATIENCE, alive, children, running, until, until_async
from tests.support.service import Service

from likewise.testing.models import upper_bundle

CALLERS = 12


@contextmanager
def serving(folder: Path) -> Iterator[Service]:
    """Run the command with a model that loads immediately."""
    model = upper_bundle(folder / "bundle", "", predicting="time.sleep(0.03)")
    home = {"LIKEWISE_CONFIG_HOME": str(folder / "config"), "LIKEWISE_CACHE_HOME": str(folder / "cache")}
    command = [*LIKEWISE, "serve", model, "-p", "0", "--trust", "--json", "--workers", "2"]
    with running(command, folder / "server.log", env=os.environ | home) as process:
        document = process.document()
        yield Service(process, document["url"], document["bundle"])


def workers(service: Service) -> set[int]:
    return set(children(service.pid, "likewise.workers.child"))


class Callers:
    """Clients that send requests until `end` is called, and check each response."""

    def __init__(self, url: str) -> None:
        self.statuses: list[int] = []
        self.completed = [0] * CALLERS
        self._url = url
        self._over = asyncio.Event()

    async def send(self, name: int) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=PATIENCE) as client:
            for i in range(1_000_000):
                if self._over.is_set():
                    return
                response = await client.post("/invocations", json={"inputs": [f"caller {name}, text {i}"]})
                self.statuses.append(response.status_code)
                self.completed[name] += 1
                if response.status_code == 200:
                    assert response.json() == {"predictions": [f"CALLER {name}, TEXT {i}"]}
                else:
                    assert response.status_code == 503, response.text
                    assert int(response.headers["Retry-After"]) >= 1
                    assert response.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"

    async def until_completed(self, more: int) -> None:
        """Wait until `more` further requests got 200."""
        expected = self.statuses.count(200) + more
        await until_async(lambda: self.statuses.count(200) >= expected)

    async def until_each_completed(self) -> None:
        """Wait until each client has got another response, so that no request is being run again."""
        before = list(self.completed)
        await until_async(lambda: all(now > then + 1 for now, then in zip(self.completed, before, strict=True)))

    def end(self) -> None:
        self._over.set()


async def kill_under_load(service: Service) -> None:
    """Requests of a killed worker are run again; they fail only if that worker is killed as well."""
    callers = Callers(service.url)
    sending = asyncio.gather(*(callers.send(name) for name in range(CALLERS)))
    for killed in range(1, 4):
        await callers.until_completed(20)
        before = workers(service)
        victim = min(before) if killed % 2 else max(before)
        os.kill(victim, signal.SIGKILL)
        await until_async(lambda: victim not in workers(service) and len(workers(service)) >= 2)  # noqa: B023
        await callers.until_each_completed()
    assert set(callers.statuses) == {200}
    assert service.metric("likewise_worker_restarts") >= 1
    for worker in workers(service):
        os.kill(worker, signal.SIGKILL)  # no worker is left
    await callers.until_completed(20)
    callers.end()
    await sending


def test_a_killed_worker_fails_no_requests_and_no_process_is_left_behind(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        asyncio.run(kill_under_load(service))
        left = workers(service)
        assert len(left) >= 2
        assert service.stop() == 0
        # a worker that was still loading exits shortly after the server, when its lifeline closes
        until(lambda: not any(map(alive, left)))
