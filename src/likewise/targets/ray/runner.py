"""Jobs on Ray: actors are the workers of `likewise.batch.distributed`.  See `architecture/ray.md`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from likewise.batch.distributed.inputs import FilesInput
from likewise.batch.distributed.run import Run, model_of
from likewise.batch.header import Header
from likewise.batch.job import JobReport, ScoreJob
from likewise.batch.rows import check_outcome
from likewise.batch.sources import open_source
from likewise.core.errors import WrongUsage
from likewise.core.extras import need
from likewise.core.option_fields import nearest
from likewise.targets.ray.agent import connect
from likewise.targets.ray.workers import RayWorkers

OPTIONS = ("num_cpus", "num_gpus", "memory")  # of each worker
MOST = "workers"


def run(job: ScoreJob) -> JobReport:
    """Score `job.source` on Ray; see `likewise.batch.score`.

    Raises what the local runner raises, MissingExtra (no Ray), TargetUnavailable (no cluster at the address),
    EngineUnavailable (no room for a worker, or workers are lost), OutputRefused also if workers cannot write to the
    folder of OUTPUT.
    """
    model = model_of(job)
    options = _resources(job.options.runner_conf)
    ray, created = _session(job.options.master)
    workers: list[RayWorkers] = []

    def place() -> RayWorkers:
        most = options.get(MOST)
        resources = {name: value for name, value in options.items() if name != MOST}
        workers.append(RayWorkers(ray, model, resources, None if most is None else int(most)))
        return workers[0]

    try:
        header = Header(job.options.header, job.signature, job.options.column)
        report = Run(job, FilesInput(open_source(job.source, job.options.input_format, header), header), place).run()
    finally:
        for each in workers:
            each.cancel()
        if created:
            ray.shutdown()
    return check_outcome(report, job)


def _session(master: str | None) -> tuple[Any, bool]:
    """Ray, and whether this call connected it: to `master`, RAY_ADDRESS, a cluster on this machine, or a new one."""
    ray = need("ray", extra="ray")
    if ray.is_initialized():
        return ray, False
    if address := master or os.environ.get("RAY_ADDRESS"):
        connect(address)
    else:
        ray.init(namespace="likewise", log_to_driver=False, logging_level="ERROR")
    return ray, True


def _resources(conf: Mapping[str, str]) -> dict[str, float]:
    """The options of a worker; raises WrongUsage for an unknown name or value."""
    known = (*OPTIONS, MOST)
    found: dict[str, float] = {"num_cpus": 1.0}
    for name, text in conf.items():
        if name not in known:
            raise WrongUsage(f"--conf {name} is unknown", remedy=f"{nearest(name, known)}use: {', '.join(known)}")
        try:
            found[name] = float(text)
        except ValueError:
            found[name] = -1.0
        if not 0 <= found[name] < float("inf") or (name in ("num_cpus", MOST) and not found[name]):
            raise WrongUsage(f"--conf {name}={text}: expected a number above 0", remedy=f"for example {name}=1")
    return found
