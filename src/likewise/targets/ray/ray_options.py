"""Options of a deployment on Ray Serve: Ray's own options by Ray's names, and those of Likewise's server."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from likewise.core.cores import thread_environment
from likewise.core.errors import WrongUsage
from likewise.core.option_fields import check_ranges, option
from likewise.telemetry.switch import exporters

CANARY = frozenset({"canary", "canary_s", "canary_requests", "canary_errors", "canary_slower", "canary_timeout_s"})
OWN = CANARY | {"route_prefix", "timeout_s", "wait_for_capacity"}
SERVER = frozenset(
    {
        *("deadline_s", "run_timeout_s", "in_process", "queue_tokens", "cache_bytes"),
        *("body_limit_bytes", "cells_limit", "in_flight_bytes"),
        *("capture", "capture_rate", "capture_bytes", "capture_days"),
    }
)
SCALES = ("initial_replicas", "min_replicas")  # of autoscaling_config: the replicas at the start, by precedence
RESTARTING = ("ray_actor_options", "placement_group_bundles", "placement_group_strategy", "max_replicas_per_node")
_PREFIX = re.compile(r"/|/[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """Each field's `metadata["help"]` is its help text; None means Ray's default. Units are in the fields' names."""

    num_replicas: int | str = option(1, 'Number of replicas, or "auto" to scale with the load.')
    autoscaling_config: dict[str, Any] | None = option(None, "Ray's AutoscalingConfig as JSON; replaces num_replicas.")
    ray_actor_options: dict[str, Any] | None = option(
        None,
        'Resources of each replica, as JSON: {"num_cpus": 0.5, "num_gpus": 0.25, "memory": …, "resources": {…}, …}.',
    )
    max_ongoing_requests: int = option(
        1000, "Concurrent requests per replica; it batches them and rejects those that would miss deadline_s."
    )
    max_queued_requests: int = option(-1, "Additional requests that may wait in each proxy; -1 for no limit.")
    max_replicas_per_node: int | None = option(None, "Maximum number of replicas on one node.")
    placement_group_bundles: list[dict[str, float]] | None = option(
        None, "Resources of each replica's placement group, as JSON."
    )
    placement_group_strategy: str | None = option(
        None, "Ray's placement strategy: PACK, SPREAD, STRICT_PACK or STRICT_SPREAD."
    )
    health_check_period_s: float = option(1.0, "Seconds between two health checks of a replica.")
    health_check_timeout_s: float = option(30.0, "Seconds after which a health check without a response has failed.")
    graceful_shutdown_wait_loop_s: float = option(1.0, "Seconds that a stopping replica waits for requests in transit.")
    graceful_shutdown_timeout_s: float = option(30.0, "Seconds in which a stopping replica may complete its requests.")
    max_constructor_retry_count: int = option(3, "Failed starts of a replica after which the deployment fails.")
    max_surge_percent: int = option(
        25, "Extra replicas during an update, in percent, rounded up; 0 stops an old one before a new one starts."
    )
    rolling_update_percentage: float | None = option(None, "Part of the replicas that an update replaces at once.")
    logging_config: dict[str, Any] | None = option(None, "Ray Serve's LoggingConfig for the replicas, as JSON.")
    route_prefix: str | None = option(
        None, "The HTTP route; /NAME by default, / for all requests that match no other route."
    )
    timeout_s: float = option(
        300.0, "Seconds until all replicas must be ready; otherwise Likewise rolls back.", min=0.001
    )
    wait_for_capacity: bool = option(False, "For autoscaling clusters: wait for missing resources instead of failing.")
    canary: float = option(
        0.0,
        "Percentage of the requests that an update's new version gets at first, 50 at most; 0 for no canary.",
        min=0,
        max=50,
    )
    canary_s: float = option(30.0, "Maximum seconds for which the canary is watched.", min=1)
    canary_requests: int = option(500, "Requests to the canary after which the watch ends early.", min=1)
    canary_errors: float = option(
        1.0, "Allowed percentage of requests that fail on the canary but succeed on the old version.", min=0, max=100
    )
    canary_slower: float = option(
        2.0, "Allowed ratio of its response times to the old version's (median and p95).", min=1
    )
    canary_timeout_s: float = option(
        35.0, "Seconds until the canary must be ready; otherwise Likewise removes it.", min=1
    )
    deadline_s: float = option(
        60.0, "Seconds within which a request must be served; otherwise it is rejected.", min=0.001
    )
    run_timeout_s: float = option(
        30.0, "Time limit for a run of the model, in seconds: it ends with its worker process; 0 for no limit.", min=0
    )
    in_process: bool = option(False, "Run the model's code in the replica's process instead of in a worker.")
    queue_tokens: int = option(
        4_000_000, "Number of tokens that may wait in a replica; further requests are rejected.", min=1
    )
    cache_bytes: int = option(
        64 * 1024 * 1024, "Memory of a replica for caching predictions of a pure model; 0 disables the cache.", min=0
    )
    body_limit_bytes: int = option(25 * 1024 * 1024, "Maximum size of a request body in bytes.", min=1)
    cells_limit: int = option(
        1_000_000, "Maximum number of values of a request: rows times columns, or elements.", min=1
    )
    in_flight_bytes: int = option(
        200 * 1024 * 1024, "Estimated memory of a replica's requests in flight; further ones are rejected.", min=1
    )

    capture: str | None = option(
        None,
        "Folder of each node in which replicas capture requests and predictions, including all texts in them.",
    )
    capture_rate: float = option(
        1.0, "Fraction of the requests to capture, chosen by a hash of the request id.", min=0.0, max=1.0
    )
    capture_bytes: int = option(1024 * 1024 * 1024, "Maximum size of the captured files in that folder.", min=100_000)
    capture_days: float = option(30.0, "Age at which captured files are deleted.", min=0.001)

    def traced(self) -> bool:
        """Whether the replicas' environment requests traces; raises WrongUsage for an unsupported setting."""
        runtime_env = (self.ray_actor_options or {}).get("runtime_env") or {}
        return bool(exporters(runtime_env.get("env_vars") or {}))

    def __post_init__(self) -> None:
        if isinstance(self.num_replicas, str) and self.num_replicas != "auto":
            raise WrongUsage(
                f"num_replicas is {self.num_replicas!r}, not a number or 'auto'",
                remedy="use -C num_replicas=2, or auto",
            )
        if isinstance(self.num_replicas, int) and self.num_replicas < 1:
            raise WrongUsage("num_replicas is less than 1", remedy="use -C num_replicas=1")
        if self.route_prefix is not None and not _PREFIX.fullmatch(self.route_prefix):
            raise WrongUsage(
                f"route_prefix {self.route_prefix!r} is not a valid route", remedy="use -C route_prefix=/NAME"
            )
        if self.capture is not None and not self.capture.startswith("/"):
            raise WrongUsage(
                f"capture is {self.capture!r}, which each replica would create in its working directory",
                remedy="use an absolute path of a folder on the nodes: -C capture=/var/captured",
            )
        check_ranges(self)
        actor, scaling = self.ray_actor_options or {}, self.autoscaling_config or {}
        _require_numbers("ray_actor_options", {name: actor.get(name) for name in ("num_cpus", "num_gpus", "memory")})
        _require_numbers("resources of ray_actor_options", actor.get("resources"))
        _require_numbers("autoscaling_config", {name: scaling.get(name) for name in SCALES})
        for bundle in self.placement_group_bundles or []:
            _require_numbers("placement_group_bundles", bundle)
        runtime = _require_object("runtime_env", actor.get("runtime_env"))
        _require_object("env_vars of runtime_env", runtime.get("env_vars"))

    def prefix(self, name: str) -> str:
        """The route of the deployment `name`; raises WrongUsage if the name is not valid."""
        if not _NAME.fullmatch(name):
            raise WrongUsage(
                f"{name!r} is not a valid deployment name on Ray: it is part of the URL",
                remedy="use letters, digits, '.', '_' and '-', starting with a letter or digit",
            )
        return self.route_prefix or f"/{name}"

    def server(self) -> dict[str, Any]:
        """The fields that are options of Likewise's server (ServerOptions)."""
        return {name: getattr(self, name) for name in sorted(SERVER)}

    def deployment(self) -> dict[str, Any]:
        """The arguments of `serve.deployment`, without options that have Ray's default."""
        ray = {n: v for n, v in asdict(self).items() if n not in OWN | SERVER and v is not None}
        if self.autoscaling_config is not None and self.num_replicas == 1:
            del ray["num_replicas"]
        return {**ray, "ray_actor_options": with_threads(self.ray_actor_options or {})}

    def replicas(self) -> int:
        """The number of replicas for which resources are needed at the start."""
        if isinstance(self.num_replicas, int) and self.autoscaling_config is None:
            return self.num_replicas
        config = self.autoscaling_config or {}
        return int(next((config[name] for name in SCALES if config.get(name) is not None), 1))

    @property
    def scales(self) -> bool:
        """Whether Ray changes the number of replicas with the load."""
        return self.num_replicas == "auto" or self.autoscaling_config is not None

    def as_canary(self) -> Self:
        """The options of the canary: `canary` percent of the replicas, at least one, and no autoscaling."""
        count = max(1, math.ceil(self.replicas() * self.canary / 100))
        return replace(self, num_replicas=count, autoscaling_config=None)

    def resources(self) -> dict[str, float]:
        """The resources of one replica, by Ray's resource names."""
        actor = self.ray_actor_options or {}
        if self.placement_group_bundles:
            groups = self.placement_group_bundles
            return {name: sum(g.get(name, 0.0) for g in groups) for name in {n for g in groups for n in g}}
        resources = {"CPU": _cpus(actor), "GPU": actor.get("num_gpus"), "memory": actor.get("memory")}
        if kind := actor.get("accelerator_type"):
            resources[f"accelerator_type:{kind}"] = 0.001  # what Ray reserves of it
        resources |= actor.get("resources") or {}
        return {name: float(amount) for name, amount in resources.items() if amount}

    def restarts(self, other: Self) -> bool:
        """Whether Serve restarts the replicas of the deployment `other` to give it these options."""
        mine, others = self.deployment(), other.deployment()
        return self.server() != other.server() or any(mine.get(name) != others.get(name) for name in RESTARTING)


def with_threads(actor: Mapping[str, Any]) -> dict[str, Any]:
    """`actor` with variables that limit libraries to one thread per CPU; the user's own `env_vars` take precedence.

    Ray does not enforce its CPU counts: without these variables a library starts a thread for each core of the host.
    """
    runtime = dict(actor.get("runtime_env") or {})
    variables = thread_environment(runtime.get("env_vars") or {}, int(_cpus(actor)))
    return {**actor, "runtime_env": {**runtime, "env_vars": variables}}


def _cpus(actor: Mapping[str, Any]) -> float:
    """The CPUs of a replica; Serve's default is 1."""
    return 1 if actor.get("num_cpus") is None else float(actor["num_cpus"])


def _require_object(name: str, value: Any) -> Mapping[str, Any]:
    """The value, {} for None; raises WrongUsage unless it is a JSON object."""
    if value is not None and not isinstance(value, Mapping):
        raise WrongUsage(f"{name} is {value!r}, not a JSON object", remedy='use {"KEY": VALUE}')
    return value or {}


def _require_numbers(name: str, values: Any) -> None:
    """Raise WrongUsage unless every value is a number that is not negative, or None."""
    for key, value in _require_object(name, values).items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and 0 <= value < math.inf):
            cause = f"{key} of {name} is {value!r}, not a number that is 0 or more"
            raise WrongUsage(cause, remedy=f'use {{"{key}": NUMBER}}, or omit it')
