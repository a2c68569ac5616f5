"""The access log: lines that are lost are counted and reported."""

import asyncio
import io
import json
import threading
from typing import Any

import pytest

from likewise.server import access
from likewise.server.access import AccessLog
from likewise.server.metrics import Metrics


class Stream(io.StringIO):
    """Waits while `gate` is closed, and fails while `broken`."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False

    def write(self, text: str) -> int:
        self.gate.wait(10)
        if self.broken:
            raise BrokenPipeError
        return super().write(text)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


def counted(metrics: Metrics) -> str:
    page = metrics.exposition("")[0].decode()
    return next(
        line.rpartition(" ")[2] for line in page.splitlines() if line.startswith("likewise_log_lines_lost_total")
    )


async def written(log: AccessLog) -> None:
    log._flush()
    await asyncio.wrap_future(log._thread.submit(int))


def test_lines_beyond_the_buffer_are_counted_while_its_reader_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_BUFFERED", 3)
    stream, metrics = Stream(), Metrics("sha256:abc")

    async def main() -> None:
        log = AccessLog(stream, metrics.lines_lost)
        stream.gate.clear()
        for n in range(5):
            log.add({"n": n})
        assert counted(metrics) == "2.0"
        stream.gate.set()
        await written(log)
        log.add({"n": 5})
        await log.close()

    asyncio.run(main())
    assert [line.get("n", line.get("lines_lost")) for line in stream.lines()] == [0, 1, 2, 2, 5]


def test_lines_that_cannot_be_written_are_counted_and_reported_later() -> None:
    stream, metrics = Stream(), Metrics("sha256:abc")

    async def main() -> None:
        log = AccessLog(stream, metrics.lines_lost)
        stream.broken = True
        for n in range(2):
            log.add({"n": n})
            await written(log)
        assert counted(metrics) == "2.0"
        stream.broken = False
        log.add({"n": 2})
        await log.close()

    asyncio.run(main())
    assert [line.get("n", line.get("lines_lost")) for line in stream.lines()] == [2, 2]
