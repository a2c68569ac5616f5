"""Endurance tests: the service under overload, the worst bodies, disconnects, stops, hung and crashed workers.

Also a deployment on Ray with killed replicas, many updates and faulty versions.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator

from bench.options import Options
from bench.scenarios import (
    bodies,
    chaos,
    drain,
    hangup,
    hung,
    identity,
    overload,
    ray_faults,
    scaling,
    starve,
    workers,
)
from bench.verdict import Verdict

SCENARIOS: dict[str, Callable[[Options], Verdict]] = {
    "overload": overload.overload,
    "swap": identity.swap,
    "poison": identity.poison,
    "starve": starve.starve,
    "hangup": hangup.hangup,
    "drain": drain.drain,
    "workers": workers.workers,
    "hung": hung.hung,
    "chaos": chaos.chaos,
    "scaling": scaling.scaling,
    "bodies": bodies.bodies,
    "ray-kill": ray_faults.kill,
    "ray-updates": ray_faults.updates,
    "ray-rollback": ray_faults.rollback,
}


def soak(options: Options) -> Iterator[Verdict]:
    """Run all scenarios or the named one; prints and yields one verdict each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each pending request needs a connection on both sides
    for name in [options.scenario] if options.scenario else SCENARIOS:
        print(f"{name} …", flush=True)
        verdict = SCENARIOS[name](options)
        verdict.show()
        yield verdict
