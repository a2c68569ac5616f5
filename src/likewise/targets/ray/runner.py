"""Jobs on Ray: actors are the workers of `likewise.batch.distributed`.  See `architecture/ray.md`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from likewise.batch.distributed.run import model_of
from likewise.batch.distributed.run import run as run_on
from likewise.batch.job import JobReport, ScoreJob
from likewise.batch.sources import open_files
from likewise.core.errors import EngineUnavailable, TargetUnavailable, WrongUsage
from likewise.core.extras import need
from likewise.core.option_fields import nearest
from likewise.targets.ray.agent import HOW_TO_START, connect
from likewise.targets.ray.workers import RayWorkers

OPTIONS = ("num_cpus", "num_gpus", "memory")  # of each worker
MOST, WAIT = "workers", "wait_for_capacity"


def run(job: ScoreJob) -> JobReport:
    """Score `job.source` on Ray; see `likewise.batch.score`.

    Raises what the local runner raises, MissingExtra (no Ray), TargetUnavailable (no cluster at the address),
    EngineUnavailable (a worker fits no node, or workers are lost), OutputRefused also if workers cannot write to the
    folder of OUTPUT.
    """
    model = model_of(job)
    conf = dict(job.options.runner_conf)
    wait = _flag(conf.pop(WAIT, "false"))
    options = _resources(conf)
    ray, created = _session(job.options.master)
    workers: list[RayWorkers] = []

    def place() -> RayWorkers:
        most = int(options[MOST]) if MOST in options else None
        resources = {name: value for name, value in options.items() if name in OPTIONS}
        workers.append(RayWorkers(ray, model, resources, most=most, wait=wait))
        return workers[0]

    try:
        return run_on(job, lambda: open_files(job), place)
    except Exception as error:
        if not type(error).__module__.startswith("ray."):  # Ray's timeout is also an OSError
            raise
        raise EngineUnavailable(
            f"Ray failed: {str(error)[:500]}", remedy="run the same command again when the cluster works"
        ) from error
    finally:
        for each in workers:
            each.cancel()
        if created:
            ray.shutdown()


def _session(master: str | None) -> tuple[Any, bool]:
    """Ray, and whether this call connected it: to `master`, RAY_ADDRESS, a cluster on this machine, or a new one."""
    ray = need("ray", extra="ray")
    if ray.is_initialized():
        if master is not None:
            raise WrongUsage(
                f"this program is connected to Ray already, and {master} was requested",
                remedy="omit the master to use this connection, or call ray.shutdown() first",
            )
        return ray, False
    if address := master or os.environ.get("RAY_ADDRESS"):
        connect(address.replace("ray-serve://", "ray://", 1))  # as targets are named
    else:
        try:
            ray.init(namespace="likewise", log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # of the cluster that this machine's files name, or of starting one
            raise TargetUnavailable(f"Ray does not start: {str(error)[:500]}", remedy=HOW_TO_START) from error
    return ray, True


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise WrongUsage(f"--conf {WAIT}={text}: expected true or false", remedy=f"use --conf {WAIT}=true, or omit it")
    return text == "true"


def _resources(conf: Mapping[str, str]) -> dict[str, float]:
    """The options of a worker; raises WrongUsage for an unknown name or value."""
    known = (*OPTIONS, MOST, WAIT)
    found: dict[str, float] = {"num_cpus": 1.0}
    for name, text in conf.items():
        if name not in known:
            raise WrongUsage(f"--conf {name} is unknown", remedy=f"{nearest(name, known)}use: {', '.join(known)}")
        try:
            found[name] = float(text)
        except ValueError:
            found[name] = -1.0
        if not 0 < found[name] < float("inf") or (name == MOST and found[name] != int(found[name])):
            raise WrongUsage(f"--conf {name}={text}: expected a number above 0", remedy=f"for example {name}=1")
    return found
