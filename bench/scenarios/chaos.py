"""Everything at once: hangs, crashes, kills, disconnects, slow clients and large bodies next to ordinary callers."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path

import orjson

from bench.generator import HEAD, Client, Outcome, Request, go
from bench.model import body, hostile
from bench.options import Options
from bench.processes import family, resident_mb
from bench.servers import Server, likewise_serve, running
from bench.verdict import Check, Verdict, quantile, statuses, waits

SECONDS = 600.0
CALLERS = 100
PAUSE_S = 0.25  # of a caller between two requests
TIMEOUT_S = 2.0
EVERY_S = 4.0  # between two faults
CALM = 0.2  # fraction of the time without faults, before them
SLOWER = 3.0  # p99 of ordinary callers, compared with calm
GROWTH = 1.3  # memory of the server's process, compared with calm
WORKER = "likewise.workers"
LARGE = 2_000  # rows of a large body
EXIT_S = 25.0

Fault = Callable[["Chaos"], Coroutine[object, object, None]]


@dataclass
class Chaos:
    """The server and what has been done to it. hostile: the statuses of the responses to hostile requests."""

    server: Server
    moments: random.Random
    hostile: dict[str, list[int]] = field(default_factory=dict)

    async def post(self, kind: str, texts: list[str]) -> None:
        """Send one hostile request and record the status of its response."""
        client = Client(self.server.port)
        client.send(Request(0, kind, texts, body(*texts)))
        (outcome,) = await client.settled(60.0)
        self.hostile.setdefault(kind, []).append(outcome.status if outcome.fate == "answered" else 0)

    def worker(self) -> int | None:
        """The id of one of the workers."""
        workers = self.server.children(WORKER)
        return self.moments.choice(workers) if workers else None


def chaos(options: Options) -> Verdict:
    """Ten minutes, or `--seconds`."""
    return run_chaos(hostile().bundle, options.seconds or SECONDS)


def run_chaos(bundle: Path, seconds: float, every_s: float = EVERY_S) -> Verdict:
    """Serve `bundle`, whose rows are hostile like those of `hostile_model`, for `seconds`, with a fault `every_s`."""
    argv = likewise_serve(
        bundle, "--trust", "--run-timeout", f"{TIMEOUT_S:g}", "--read-timeout", "3", "--no-access-log"
    )
    with running(argv, body("the first text")) as server:
        calm, rough, done, memory = go(_days(Chaos(server, random.Random(7)), seconds, every_s))
        left = family(server.process.pid)
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(EXIT_S)
        orphans = [pid for pid in left if _alive(pid)]
    p99 = {name: quantile((one.wait for one in some), 0.99) for name, some in (("calm", calm), ("rough", rough))}
    ordinary = [*calm, *rough]
    return Verdict(
        "chaos",
        {
            "ordinary": statuses(ordinary),
            "calm": waits(calm),
            "rough": waits(rough),
            "hostile": {kind: " ".join(map(str, sorted(set(found)))) for kind, found in done.items()},
            "faults": sum(map(len, done.values())),
            "memory_mb": [round(each, 1) for each in memory],
        },
        [
            Check("ordinary requests without a 200", sum(one.status != 200 for one in ordinary), "at most", 0),
            Check("swapped responses", sum(one.status == 200 and not _is_own(one) for one in ordinary), "at most", 0),
            Check("p99 of ordinary requests, ratio to calm", p99["rough"] / p99["calm"], "at most", SLOWER),
            Check("memory of the server, ratio to calm", memory[1] / memory[0], "at most", GROWTH),
            Check("exit code", code, "at most", 0),
            Check("processes left", len(orphans), "at most", 0),
        ],
    )


async def _days(
    chaos: Chaos, seconds: float, every_s: float
) -> tuple[list[Outcome], list[Outcome], dict[str, list[int]], list[float]]:
    """The outcomes before and during the faults, the hostile responses, and the memory at the end of both times."""
    pid = chaos.server.process.pid
    calm = await _callers(chaos.server.port, seconds * CALM)
    memory = [resident_mb(pid)]
    ordinary = asyncio.create_task(_callers(chaos.server.port, seconds * (1 - CALM)))
    faults: set[asyncio.Task[None]] = set()
    for fault in cycle(FAULTS):
        await asyncio.sleep(every_s * chaos.moments.uniform(0.5, 1.5))
        if ordinary.done():
            break
        faults.add(asyncio.create_task(fault(chaos)))
    rough = await ordinary
    await asyncio.gather(*faults)
    return calm, rough, chaos.hostile, [*memory, resident_mb(pid)]


async def _callers(port: int, seconds: float) -> list[Outcome]:
    """Callers that send a request, wait for its response, and pause."""
    loop, texts = asyncio.get_running_loop(), _requests()
    until = loop.time() + seconds

    def again(_: Outcome) -> None:
        if loop.time() < until:
            loop.call_later(random.uniform(0.0, 2 * PAUSE_S), lambda: client.send(next(texts)))

    client = Client(port, again)
    for _ in range(CALLERS):
        loop.call_later(random.uniform(0.0, PAUSE_S), lambda: client.send(next(texts)))
    await asyncio.sleep(seconds + 2 * PAUSE_S)
    return await client.settled(60.0)


def _requests() -> Iterator[Request]:
    for number in count():
        text = f"caller {number} waves"
        yield Request(number, "ordinary", [text], body(text))


def _alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    path = Path(f"/proc/{pid}/cmdline")
    return path.exists() and bool(path.read_bytes())


def _is_own(outcome: Outcome) -> bool:
    found = orjson.loads(outcome.body)["predictions"]
    wanted = [text.upper() for text in outcome.request.texts]
    return found in (wanted, [{"text": text} for text in wanted])


# --- faults ----------------------------------------------------------------------------------------------------------


def _row(kind: str) -> Fault:
    async def fault(chaos: Chaos) -> None:
        await chaos.post(kind, [f"{kind} now"])

    return fault


async def _several_rows(chaos: Chaos) -> None:
    """A request with hostile rows between ordinary ones."""
    await chaos.post("several", ["a", "exit now", "b", "crash now", "c"])


async def _kill(chaos: Chaos) -> None:
    if (pid := chaos.worker()) is not None:
        os.kill(pid, signal.SIGKILL)


async def _freeze(chaos: Chaos) -> None:
    """A worker that neither runs nor ends."""
    if (pid := chaos.worker()) is not None:
        os.kill(pid, signal.SIGSTOP)


async def _signals(chaos: Chaos) -> None:
    """Signals to the group of a worker, which ignores them: its parent stops it."""
    if (pid := chaos.worker()) is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)


async def _disconnect(chaos: Chaos) -> None:
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", chaos.server.port)
        content = body("a client that leaves")
        writer.write(HEAD % len(content) + content)
        await writer.drain()
        writer.transport.abort()


async def _slow_sender(chaos: Chaos) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", chaos.server.port)
    content = body("a slow client")
    writer.write(HEAD % len(content))
    for byte in content[:20]:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.2)
        if writer.is_closing():
            break
    writer.transport.abort()


async def _slow_reader(chaos: Chaos) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", chaos.server.port, limit=1024)
    content = body(*(f"row {number} {'word ' * 20}" for number in range(LARGE)))
    writer.write(HEAD % len(content) + content)
    await asyncio.sleep(TIMEOUT_S)
    writer.transport.abort()
    del reader


async def _large(chaos: Chaos) -> None:
    await chaos.post("large", [f"row {number} {'word ' * 20}" for number in range(LARGE)])


FAULTS: tuple[Fault, ...] = (
    _row("panic"),
    _row("crash"),
    _disconnect,
    _row("hang"),
    _kill,
    _large,
    _row("exit"),
    _slow_sender,
    _row("spin"),
    _several_rows,
    _signals,
    _freeze,
    _slow_reader,
    _row("leave"),
)
