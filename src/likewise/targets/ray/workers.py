"""The workers of a job on Ray: actors, each of which runs one task at a time; one that is lost is replaced.

Actors instead of Ray Data, whose workers need PyArrow before any code of a job runs; a node may have only Ray.
"""

from __future__ import annotations

import importlib
import os
import pickle
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from likewise.batch.distributed.staging import ChunkFile
from likewise.batch.distributed.tally import Tally
from likewise.batch.distributed.tasks import ScorePlan
from likewise.core.errors import EngineUnavailable, LikewiseError, WrongUsage
from likewise.core.spec import ModelSpec
from likewise.targets.ray import store
from likewise.telemetry.switch import exporters

POLL_S = 0.2
ATTEMPTS = 4  # of a task whose worker is lost, as Spark's
RENEW_S = 600.0
RESOURCES = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
LOGS = "see the logs of the Ray cluster"


class RayWorkers:
    """The actors of one job.  See `likewise.batch.distributed.run.Workers`."""

    def __init__(
        self, ray: Any, model: ModelSpec, options: Mapping[str, float], *, most: int | None = None, wait: bool = False
    ) -> None:
        """options: of each actor (`num_cpus`, …).  most: actors.  wait: for a node that is large enough.

        Raises WrongUsage for an option that Ray refuses, EngineUnavailable if no node has the resources of an actor,
        unless `wait` is set, and what `store.ship` raises.
        """
        self._ray = ray
        self._most = most
        self._needs = {name: options[option] for name, option in RESOURCES.items() if options.get(option)}
        if not wait:
            self._check_nodes()
        worker = importlib.import_module("likewise.targets.ray.replica").BatchWorker
        try:
            actor = ray.remote(**options)(worker)
        except ValueError as error:
            raise WrongUsage(f"Ray refuses --conf: {error}", remedy="correct the value") from error
        store.collect_garbage()
        extras = ["batch", *(["telemetry"] if exporters(os.environ) else [])]
        self._shipment = store.ship({"model": model.as_dict(), "extras": extras})["shipment"]
        store.by_value()
        self._job = f"job/{uuid.uuid4().hex}"
        self._renewed = float("-inf")
        self._create: Callable[[], Any] = lambda: actor.remote(self._shipment, model.portable())
        self._starting: dict[Any, Any] = {}  # references to results, and the actors that compute them
        self._busy: dict[Any, tuple[Any, int]] = {}
        self._idle: list[Any] = []

    @property
    def slots(self) -> int:
        """The number of actors that fit the whole cluster now."""
        there = self._ray.cluster_resources()
        fitting = min(int(there.get(name, 0.0) / amount) for name, amount in self._needs.items())
        return max(1, min(fitting, self._most or fitting))

    def cut(self, count: int, arguments: tuple[Any, ...]) -> list[Mapping[str, Any]]:
        """See `Workers`."""
        results = dict(self._run([("cut", number, *arguments) for number in range(count)], lambda _: None))
        return [results[number] for number in range(count)]

    def score(self, plan: ScorePlan, chunks: Sequence[ChunkFile], tally: Tally) -> None:
        """See `Workers`."""
        tasks = [("score", plan, chunk.name, chunk.row_offset) for chunk in chunks]

        def report(running: Sequence[int]) -> None:
            tally.update([chunks[number] for number in running], self._status())

        for number, _ in self._run(tasks, report):
            report([number])
        self._end_idle()

    def cancel(self) -> None:
        """End all actors, and with them their tasks."""
        actors = [*self._starting.values(), *self._idle, *(actor for actor, _ in self._busy.values())]
        self._starting, self._busy, self._idle = {}, {}, []
        for actor in actors:
            self._end(actor)
        with suppress(Exception):  # the connection itself may have failed
            store.drop(self._job)
            store.collect_garbage()

    def _run(
        self, tasks: Sequence[tuple[Any, ...]], report: Callable[[Sequence[int]], None]
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The number and the result of each task, in the order in which they end; raises the first error."""
        pending = deque(range(len(tasks)))
        attempts: Counter[int] = Counter()
        lost = 0  # actors in a row that did not start
        while pending or self._busy:
            self._renew()
            while pending and self._idle:
                actor, number = self._idle.pop(), pending.popleft()
                self._busy[actor.run.remote(pickle.dumps(tasks[number]))] = actor, number
            # `slots` is a request to the cluster
            wanted = min(len(pending), self.slots - len(self._busy)) if pending else 0
            for _ in range(wanted - len(self._starting)):
                actor = self._create()
                self._starting[actor.ready.remote()] = actor
            done, _ = self._ray.wait([*self._starting, *self._busy], num_returns=1, timeout=POLL_S)
            for each in done:
                if each in self._starting:
                    lost = 0 if self._value(each, self._starting.pop(each)) is not None else lost + 1
                    if lost >= ATTEMPTS:
                        raise EngineUnavailable(f"{lost} workers were lost while they started", remedy=LOGS)
                    continue
                actor, number = self._busy.pop(each)
                if (result := self._value(each, actor)) is None:
                    attempts[number] += 1
                    if attempts[number] >= ATTEMPTS:
                        raise EngineUnavailable(
                            f"the worker was lost {ATTEMPTS} times while it ran the same task",
                            remedy=f"{LOGS}: a row may crash the model, or memory is short",
                        )
                    pending.appendleft(number)
                    continue
                yield number, result
            report([number for _, number in self._busy.values()])

    def _value(self, reference: Any, actor: Any) -> Mapping[str, Any] | None:
        """The result `reference` of `actor`, which is idle then; None if the actor is lost."""
        errors = self._ray.exceptions
        lost = errors.RayActorError, errors.ObjectLostError, errors.WorkerCrashedError, errors.OutOfMemoryError
        try:
            result: Mapping[str, Any] = self._ray.get(reference)
        except Exception as error:
            self._end(actor)
            if isinstance(error, lost) and not getattr(error, "actor_init_failed", False):
                return None
            raise _failed(error) from error
        self._idle.append(actor)
        if "error" in result:
            raise LikewiseError.from_dict(result["error"])
        return result

    def _check_nodes(self) -> None:
        """Raise EngineUnavailable if no node has the resources of an actor."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0.0) >= amount for name, amount in self._needs.items()) for node in nodes):
            return
        needs = ", ".join(f"{amount:g} {name}" for name, amount in self._needs.items())
        raise EngineUnavailable(
            f"a worker needs {needs}, and no node of the Ray cluster has them",
            remedy="request less with --conf, add a node, or wait for one with --conf wait_for_capacity=true",
        )

    def _end_idle(self) -> None:
        while self._idle:
            self._end(self._idle.pop())

    def _end(self, actor: Any) -> None:
        with suppress(Exception):
            self._ray.kill(actor)

    def _renew(self) -> None:
        """Keep the archives of this job in the cluster's store."""
        if time.monotonic() - self._renewed > RENEW_S:
            self._renewed = time.monotonic()
            store.put(self._job, {"shipment": self._shipment, "at": time.time()})

    def _status(self) -> str:
        ready = len(self._busy) + len(self._idle)
        return f"{ready} worker{'s' * (ready != 1)}"


def _failed(error: Exception) -> EngineUnavailable:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception"))]
    return EngineUnavailable(
        f"a worker on Ray failed: {(raised or lines or [type(error).__name__])[-1][:500]}",
        remedy=LOGS,
    )
