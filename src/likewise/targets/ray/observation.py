"""The metrics pages and the logs of a deployment's replicas; runs in the agent."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from likewise.core.errors import TargetUnavailable
from likewise.targets.ray import store
from likewise.targets.ray.inspection import APP, DEPLOYMENT, applications, details_of

PAGES_S = 10.0
READ_S = 30.0
TAIL_BYTES = 1 << 20  # of a file, in which its last lines are searched
MARKS = (":job_id:", ":actor_name:", ":task_name:")  # lines that Ray writes for its log monitor


def metrics_pages(params: Mapping[str, Any]) -> list[str]:
    """The metrics page of each replica that responds; params: name.  Raises TargetUnavailable if none does."""
    ray = importlib.import_module("ray")
    app = APP + params["name"]
    store.by_value()
    relay = importlib.import_module("likewise.targets.ray.replica").Relay
    actor = ray.remote(num_cpus=0)(relay).remote(DEPLOYMENT, app)
    try:
        pages = ray.get(actor.broadcast.remote("metrics", None, PAGES_S), timeout=3 * PAGES_S)
    except Exception:  # noqa: BLE001  no replica responds
        pages = []
    finally:
        ray.kill(actor)
    if not pages:
        raise TargetUnavailable("no replica has sent its figures", remedy="try again, or update the deployment")
    return [each["page"] for each in pages]


def log_lines(params: Mapping[str, Any]) -> dict[str, Any]:
    """New lines of the replicas' output files, which Serve's log is a part of; Ray's own log API needs a dashboard.

    params: name; lines: how many to return of a file that is not read yet, None for all; positions: by file, the end of
    what has been read.  files: name, replica, lines and position of each.  exists: whether the deployment does.
    """
    app = APP + params["name"]
    exists = app in applications()
    replicas = details_of(app).get("replicas", []) if exists else []
    workers = {each["worker_id"]: each["replica_id"] for each in replicas if each.get("worker_id")}
    importlib.import_module("ray.cloudpickle").register_pickle_by_value(importlib.import_module(__name__))
    nodes = store.on_each_node(_read_here, workers, params["positions"], params["lines"], timeout_s=READ_S)
    return {"exists": exists, "files": [each for node in nodes for each in node]}


def _read_here(workers: Mapping[str, str], positions: Mapping[str, int], lines: int | None) -> list[dict[str, Any]]:
    """In a worker, pickled by value: the new complete lines in the output files of these workers on this node.

    workers: the replica of each.
    """
    folder = Path(importlib.import_module("ray._private.worker")._global_node.get_logs_dir_path())
    files = []
    for worker, replica in workers.items():
        for path in sorted(folder.glob(f"worker-{worker}-*.*")):
            size, position = path.stat().st_size, positions.get(path.name)
            tail = position is None and lines is not None
            start = max(0, size - TAIL_BYTES) if tail else position or 0
            start = start if start <= size else 0  # Ray has rotated it
            with path.open("rb") as file:
                file.seek(start)
                data = file.read()
            data = data[: data.rfind(b"\n") + 1]
            new = [each for each in data.decode(errors="replace").splitlines() if not each.startswith(MARKS)]
            new = new[max(0, len(new) - (lines or 0)) :] if tail else new
            files.append({"file": path.name, "replica": replica, "lines": new, "position": start + len(data)})
    return files
