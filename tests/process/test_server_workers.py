"""`likewise serve --workers 2` on a small model: what callers see of killed workers, and what is left at the end."""

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
    """The command, on a model that starts at once."""
    model = upper_bundle(folder / "bundle", "", predicting="time.sleep(0.03)")
    home = {"LIKEWISE_CONFIG_HOME": str(folder / "config"), "LIKEWISE_CACHE_HOME": str(folder / "cache")}
    command = [*LIKEWISE, "serve", model, "-p", "0", "--trust", "--json", "--workers", "2"]
    with running(command, folder / "server.log", env=os.environ | home) as process:
        found = process.document()
        yield Service(process, found["url"], found["bundle"])


def workers(service: Service) -> set[int]:
    return set(children(service.pid, "likewise.workers.child"))


class Callers:
    """Ask one request after another until told to end; each answer must be there, and be right."""

    def __init__(self, url: str) -> None:
        self.statuses: list[int] = []
        self._url = url
        self._over = asyncio.Event()

    async def ask(self, name: int) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=PATIENCE) as client:
            for i in range(1_000_000):
                if self._over.is_set():
                    return
                answer = await client.post("/invocations", json={"inputs": [f"caller {name}, text {i}"]})
                self.statuses.append(answer.status_code)
                if answer.status_code == 200:
                    assert answer.json() == {"predictions": [f"CALLER {name}, TEXT {i}"]}
                else:
                    assert answer.status_code == 503, answer.text
                    assert int(answer.headers["Retry-After"]) >= 1
                    assert answer.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"

    async def answered(self, more: int) -> None:
        """Until so many more are answered with 200."""
        wanted = self.statuses.count(200) + more
        await until_async(lambda: self.statuses.count(200) >= wanted)

    def end(self) -> None:
        self._over.set()


async def kill_under_load(service: Service) -> None:
    callers = Callers(service.url)
    asking = asyncio.gather(*(callers.ask(name) for name in range(CALLERS)))
    for killed in range(1, 4):
        await callers.answered(20)
        before = workers(service)
        assert len(before) == 2
        os.kill(min(before) if killed % 2 else max(before), signal.SIGKILL)
        await until_async(lambda: len(workers(service) - before) == 1 and len(workers(service)) == 2)  # noqa: B023
        await until_async(lambda: service.metric("likewise_worker_restarts") == killed)  # noqa: B023
        await callers.answered(20)
    for one in workers(service):
        os.kill(one, signal.SIGKILL)  # nobody is left who could answer
    await callers.answered(20)
    callers.end()
    await asking
    assert 503 in callers.statuses


def test_a_killed_worker_costs_only_what_it_held_and_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        asyncio.run(kill_under_load(service))
        left = workers(service)
        assert len(left) == 2
        assert service.stop() == 0
        # one that was loading is killed by its lifeline when the server has gone, and that is seen a moment later
        until(lambda: not any(map(alive, left)))
