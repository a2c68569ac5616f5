"""Spark jobs whose tasks answer with lines of JSON, and waves of them that leave no slot idle."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cached_property
from typing import Any

from likewise.core.errors import EngineUnavailable, LikewiseError
from likewise.targets.spark.plan import ChunkFile
from likewise.targets.spark.progress import Tally, status_of
from likewise.targets.spark.session import slots
from likewise.targets.spark.tasks import TOLD, TaskScorer
from likewise.targets.spark.udf import Placed, portable

WAVES = 2  # in flight: while the last tasks of one run, the other's take the free slots
CHUNKS_A_SLOT = 16  # in a wave
LARGEST = 1000  # chunks a wave, whose names travel with its tasks
POLL_S = 0.5


class Jobs:
    """The jobs of one session, which can be cancelled together."""

    def __init__(self, spark: Any, placed: Placed) -> None:
        self._spark = spark
        self._shipment = placed.shipment
        self._tag = f"likewise-{uuid.uuid4().hex[:12]}"

    @cached_property
    def slots(self) -> int:
        """Tasks that run at once; asked once, as on Spark Connect the question is a job."""
        return slots(self._spark)

    def numbered(self, call: str, count: int, arguments: tuple[Any, ...]) -> list[Mapping[str, Any]]:
        """`call` with each number below `count`, a task a number; the first error is raised."""
        if count == 0:
            return []
        return self.over(self._spark.range(0, count, 1, numPartitions=count), call, arguments)

    def over(self, frame: Any, call: str, arguments: tuple[Any, ...]) -> list[Mapping[str, Any]]:
        """`call` with the batches of each partition of `frame`."""
        self._spark.addTag(self._tag)  # of this thread's jobs
        try:
            rows = frame.mapInArrow(portable(call, arguments, self._shipment), TOLD).collect()
        except Exception as error:  # whatever Spark, its workers or the connection say
            raise EngineUnavailable(
                f"the Spark job failed: {_reason(error)}", remedy="see the executors' logs"
            ) from error
        answers = [json.loads(row[0]) for row in rows]
        for answer in answers:
            if "error" in answer:
                raise LikewiseError.from_dict(answer["error"])
        return answers

    def score(self, placed: Placed, plan: TaskScorer, missing: Sequence[ChunkFile], tally: Tally) -> None:
        """Score the chunks, two waves at a time; `tally` is kept up to date. Raises what went wrong first."""
        size = min(LARGEST, CHUNKS_A_SLOT * self.slots)
        waves = (missing[start : start + size] for start in range(0, len(missing), size))
        with ThreadPoolExecutor(WAVES, thread_name_prefix="likewise-wave") as pool:
            running = {pool.submit(self._wave, placed, plan, wave): wave for wave in waves}
            try:
                while running:
                    done, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
                    begun = [wave for future, wave in running.items() if future in done or future.running()]
                    tally.look([chunk for wave in begun for chunk in wave], status_of(self._spark))
                    for future in done:
                        del running[future]
                        future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.cancel()  # else the pool would wait for it to end
                raise

    def cancel(self) -> None:
        """Stop what runs."""
        with suppress(Exception):  # the connection may be what failed
            self._spark.interruptTag(self._tag)

    def _wave(self, placed: Placed, plan: TaskScorer, wave: Sequence[ChunkFile]) -> None:
        chosen = [(chunk.name, chunk.ahead) for chunk in wave]
        self.numbered("tasks:score_chunks", len(wave), (placed.key, placed.model, plan, chosen))


def _reason(error: Exception) -> str:
    """The last line of a worker's traceback where there is one, else what Spark says first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception")) and " at " not in line]
    if isinstance(error, LikewiseError) or not lines:
        return str(error) or type(error).__name__
    return (told or lines)[-1 if told else 0][:500]
