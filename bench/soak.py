"""Endurance: what the web service does when it is asked for more than it can, is left, is stopped, or is wounded.

The same of a deployment on Ray: replicas that are killed, versions that follow each other, and bad ones.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator

from bench.options import Options
from bench.scenarios import drain, hangup, identity, overload, ray_faults, starve, workers
from bench.verdict import Verdict

SCENARIOS: dict[str, Callable[[Options], Verdict]] = {
    "overload": overload.overload,
    "swap": identity.swap,
    "poison": identity.poison,
    "starve": starve.starve,
    "hangup": hangup.hangup,
    "drain": drain.drain,
    "workers": workers.workers,
    "ray-kill": ray_faults.kill,
    "ray-updates": ray_faults.updates,
    "ray-rollback": ray_faults.rollback,
}


def soak(options: Options) -> Iterator[Verdict]:
    """One verdict a scenario, shown as it comes; all of them, or the one that is named."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection a waiting request, on both sides
    for name in [options.scenario] if options.scenario else SCENARIOS:
        print(f"{name} …", flush=True)
        verdict = SCENARIOS[name](options)
        verdict.show()
        yield verdict
