"""Spark jobs whose tasks return lines of JSON, run in overlapping waves so that no slot is idle."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cached_property
from typing import Any

from likewise.batch.distributed.staging import ChunkFile
from likewise.batch.distributed.tally import Tally
from likewise.batch.distributed.tasks import ScorePlan
from likewise.core.errors import EngineUnavailable, LikewiseError
from likewise.targets.spark.session import is_connect, slots
from likewise.targets.spark.tasks import RESULT_SCHEMA
from likewise.targets.spark.udf import PlacedModel, portable

WAVES = 2  # in flight: while the last tasks of one wave run, tasks of the other use the free slots
CHUNKS_PER_SLOT = 16  # in a wave
MAX_WAVE_CHUNKS = 1000  # chunk names are sent with the tasks of a wave
POLL_S = 0.5


class Jobs:
    """The jobs of one session, which can be cancelled together."""

    def __init__(self, spark: Any, placed: PlacedModel) -> None:
        self._spark = spark
        self._placed = placed
        self._tag = f"likewise-{uuid.uuid4().hex[:12]}"

    @cached_property
    def slots(self) -> int:
        """The number of tasks that run at once; cached, because the query is a job on Spark Connect."""
        return slots(self._spark)

    def cut(self, count: int, arguments: tuple[Any, ...]) -> list[Mapping[str, Any]]:
        """See `Workers`."""
        return self._run_numbered("tasks:read_files", count, arguments)

    def _run_numbered(self, call: str, count: int, arguments: tuple[Any, ...]) -> list[Mapping[str, Any]]:
        """Run `call` with each number below `count`, one task per number; raises the first error."""
        if count == 0:
            return []
        return self.run_on(self._spark.range(0, count, 1, numPartitions=count), call, arguments)

    def run_on(self, frame: Any, call: str, arguments: tuple[Any, ...]) -> list[Mapping[str, Any]]:
        """Run `call` with the batches of each partition of `frame`."""
        self._spark.addTag(self._tag)  # for jobs started by this thread
        try:
            rows = frame.mapInArrow(portable(call, arguments, self._placed.shipment), RESULT_SCHEMA).collect()
        except Exception as error:  # any error of Spark, its workers or the connection
            raise EngineUnavailable(
                f"the Spark job failed: {_reason(error)}", remedy="see the executors' logs"
            ) from error
        results = [json.loads(row[0]) for row in rows]
        for result in results:
            if "error" in result:
                raise LikewiseError.from_dict(result["error"])
        return results

    def score(self, plan: ScorePlan, chunks: Sequence[ChunkFile], tally: Tally) -> None:
        """Score the chunks, two waves at a time, updating `tally`. Raises the first error."""
        size = min(MAX_WAVE_CHUNKS, CHUNKS_PER_SLOT * self.slots)
        waves = (chunks[start : start + size] for start in range(0, len(chunks), size))
        with ThreadPoolExecutor(WAVES, thread_name_prefix="likewise-wave") as pool:
            running = {pool.submit(self._wave, plan, wave): wave for wave in waves}
            try:
                while running:
                    done, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
                    started = [wave for future, wave in running.items() if future in done or future.running()]
                    tally.update([chunk for wave in started for chunk in wave], status_of(self._spark))
                    for future in done:
                        del running[future]
                        future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.cancel()  # else leaving the pool would wait for the running waves
                raise

    def cancel(self) -> None:
        """Cancel all running jobs of this session."""
        with suppress(Exception):  # the connection itself may have failed
            self._spark.interruptTag(self._tag)

    def _wave(self, plan: ScorePlan, wave: Sequence[ChunkFile]) -> None:
        chosen = [(chunk.name, chunk.row_offset) for chunk in wave]
        self._run_numbered("tasks:score_chunks", len(wave), (self._placed.key, self._placed.model, plan, chosen))


def _reason(error: Exception) -> str:
    """The last line of a worker's traceback if there is one, else the first line of Spark's message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception")) and " at " not in line]
    if isinstance(error, LikewiseError) or not lines:
        return str(error) or type(error).__name__
    return (raised or lines)[-1 if raised else 0][:500]


def status_of(spark: Any) -> str:
    """The number of executors and the tasks of running stages in the whole session; empty on Spark Connect."""
    if is_connect(spark):
        return ""
    with suppress(Exception):  # for display only; the session may be stopping
        context = spark.sparkContext
        tracker = context.statusTracker()
        stages = [info for each in tracker.getActiveStageIds() if (info := tracker.getStageInfo(each)) is not None]
        # the driver is one of them; PySpark's own list of executors makes nine calls to the JVM for each
        executors = context._jsc.sc().getExecutorMemoryStatus().size() - 1
        parts = [f"{executors} executor{'s' * (executors > 1)}"] if executors else []
        if stages:
            done, tasks = sum(s.numCompletedTasks for s in stages), sum(s.numTasks for s in stages)
            parts.append(f"{done} of {tasks} tasks")
        return ", ".join(parts)
    return ""
