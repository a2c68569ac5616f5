"""What can be set of a deployment on Ray Serve: Ray's own options by Ray's names, and our server's."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from likewise.core.errors import WrongUsage
from likewise.core.option_fields import option

CANARY = frozenset({"canary", "canary_s", "canary_requests", "canary_errors", "canary_slower", "canary_timeout_s"})
OWN = CANARY | {"route_prefix", "timeout_s", "wait_for_capacity"}
SERVER = frozenset({"deadline_s", "queue_tokens", "cache_bytes", "body_limit_bytes"})
_PREFIX = re.compile(r"/|/[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """Each field's `metadata["help"]` is its help text; None leaves it to Ray. Seconds and bytes as their names say."""

    num_replicas: int | str = option(1, 'Replicas, or "auto" for as many as the load asks for.')
    autoscaling_config: dict[str, Any] | None = option(
        None, "Ray's AutoscalingConfig as JSON, in place of num_replicas."
    )
    ray_actor_options: dict[str, Any] | None = option(
        None, 'Of each replica, as JSON: {"num_cpus": 0.5, "num_gpus": 0.25, "memory": …, "resources": {…}, …}.'
    )
    max_ongoing_requests: int = option(
        1000, "Requests that a replica is handed at once: it makes windows of them, and refuses what it cannot answer."
    )
    max_queued_requests: int = option(-1, "Requests that may wait in each proxy beyond those; -1 sets no limit.")
    max_replicas_per_node: int | None = option(None, "Replicas on one node at most.")
    placement_group_bundles: list[dict[str, float]] | None = option(None, "Resources of each replica's group, as JSON.")
    placement_group_strategy: str | None = option(None, "PACK, SPREAD, STRICT_PACK or STRICT_SPREAD.")
    health_check_period_s: float = option(1.0, "Seconds between two looks at a replica.")
    health_check_timeout_s: float = option(30.0, "Seconds after which a look has failed.")
    graceful_shutdown_wait_loop_s: float = option(
        1.0, "Seconds that a replica which stops waits for requests on their way to it."
    )
    graceful_shutdown_timeout_s: float = option(30.0, "Seconds for what a replica which stops still answers.")
    max_constructor_retry_count: int = option(3, "Starts of a replica that fail before the deployment has failed.")
    max_surge_percent: int = option(
        25, "Replicas that an update may add, in percent, rounded up; 0 stops an old one before a new one starts."
    )
    rolling_update_percentage: float | None = option(None, "Share of the replicas that are replaced at a time.")
    logging_config: dict[str, Any] | None = option(None, "Ray Serve's LoggingConfig of the replicas, as JSON.")
    route_prefix: str | None = option(None, "Where it answers; /NAME by default, / for all that no other has.")
    timeout_s: float = option(300.0, "Seconds for all replicas to be ready; then it is taken back.")
    wait_for_capacity: bool = option(
        False, "The cluster grows by itself: wait for what it lacks instead of refusing at once."
    )
    canary: float = option(
        0.0, "Percent of the requests that an update's new version gets at first, 50 at most; 0 updates at once."
    )
    canary_s: float = option(30.0, "Seconds that it is watched at most.")
    canary_requests: int = option(500, "Requests of the new version that are enough to end that sooner.")
    canary_errors: float = option(1.0, "Percent of its requests that it may fail where the old version answers them.")
    canary_slower: float = option(2.0, "Times the old version's median and 95th percentile that it may take.")
    canary_timeout_s: float = option(35.0, "Seconds for its replicas to be ready; then it is taken back.")
    deadline_s: float = option(60.0, "Seconds in which a request is answered, or refused at once.")
    queue_tokens: int = option(4_000_000, "Tokens that may wait in a replica; more are refused.")
    cache_bytes: int = option(64 * 1024 * 1024, "Memory of a replica for answers of a pure model; 0 keeps none.")
    body_limit_bytes: int = option(25 * 1024 * 1024, "Largest request body.")

    def __post_init__(self) -> None:
        if isinstance(self.num_replicas, str) and self.num_replicas != "auto":
            raise WrongUsage(f"num_replicas is {self.num_replicas!r}", remedy="-C num_replicas=2, or auto")
        if isinstance(self.num_replicas, int) and self.num_replicas < 1:
            raise WrongUsage("num_replicas is less than 1", remedy="-C num_replicas=1")
        if self.route_prefix is not None and not _PREFIX.fullmatch(self.route_prefix):
            raise WrongUsage(f"route_prefix is {self.route_prefix!r}", remedy="-C route_prefix=/NAME")
        if self.timeout_s <= 0:
            raise WrongUsage("timeout_s is not above 0", remedy="-C timeout_s=300")
        if not 0 <= self.canary <= 50:
            raise WrongUsage(f"canary is {self.canary:g}, and not from 0 to 50 percent", remedy="-C canary=10")
        if not 0 <= self.canary_errors <= 100:
            raise WrongUsage(f"canary_errors is {self.canary_errors:g} percent", remedy="-C canary_errors=1")
        for name, least in (("canary_s", 1), ("canary_requests", 1), ("canary_slower", 1), ("canary_timeout_s", 1)):
            if getattr(self, name) < least:
                raise WrongUsage(f"{name} is less than {least}", remedy=f"-C {name}=NUMBER, or leave it out")

    def prefix(self, name: str) -> str:
        """The route of the deployment `name`; WrongUsage where it cannot be one."""
        if not _NAME.fullmatch(name):
            raise WrongUsage(
                f"{name!r} cannot be a deployment's name on Ray: it is part of its address",
                remedy="use letters, digits, '.', '_' and '-', beginning with a letter or digit",
            )
        return self.route_prefix or f"/{name}"

    def server(self) -> dict[str, Any]:
        """Those of our server."""
        return {name: getattr(self, name) for name in sorted(SERVER)}

    def deployment(self) -> dict[str, Any]:
        """Those of `serve.deployment`, as Ray takes them; what is left to Ray is not among them."""
        ray = {n: v for n, v in asdict(self).items() if n not in OWN | SERVER and v is not None}
        if self.autoscaling_config is not None and self.num_replicas == 1:
            del ray["num_replicas"]
        return {**ray, "ray_actor_options": with_threads(self.ray_actor_options or {})}

    def replicas(self) -> int:
        """Of how many there must be room at the start."""
        if isinstance(self.num_replicas, int) and self.autoscaling_config is None:
            return self.num_replicas
        config = self.autoscaling_config or {}
        return int(config.get("initial_replicas") or config.get("min_replicas", 1))

    def as_canary(self) -> Self:
        """Those of the canary's own application: its share of the replicas, at least one."""
        count = max(1, math.ceil(self.replicas() * self.canary / 100))
        return replace(self, num_replicas=count, autoscaling_config=None)

    def resources(self) -> dict[str, float]:
        """What one replica takes, by Ray's names of resources."""
        actor = self.ray_actor_options or {}
        if self.placement_group_bundles:
            groups = self.placement_group_bundles
            return {name: sum(g.get(name, 0.0) for g in groups) for name in {n for g in groups for n in g}}
        own = {"CPU": actor.get("num_cpus", 1), "GPU": actor.get("num_gpus", 0), **actor.get("resources", {})}
        return {name: float(amount) for name, amount in own.items() if amount}


def with_threads(actor: Mapping[str, Any]) -> dict[str, Any]:
    """Ray's actor options, with as many threads as CPUs where the user's environment does not say otherwise.

    Ray's CPUs are a promise between its processes: a library would start a thread for each core of the host.
    """
    threads = str(max(1, int(actor.get("num_cpus", 1))))
    runtime = dict(actor.get("runtime_env") or {})
    told = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
    return {**actor, "runtime_env": {**runtime, "env_vars": {**told, **runtime.get("env_vars", {})}}}
