"""Runs Ray Serve on this machine until it is stopped: `python -m bench.ray_place PORT BUNDLE`, or `… PORT echo`.

With RAY_SERVE_ENABLE_HA_PROXY=1 in the environment, its ingress is HAProxy.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from typing import Any

from likewise.core.extras import need

NAME = "bench"
CPUS = 2  # CPUs and threads of the replica, as many as `likewise serve` uses on two cores


def start(port: int) -> Any:
    """Start a cluster of one node with Serve on 127.0.0.1; returns the module `ray.serve`."""
    ray, serve = need("ray", extra="ray"), need("ray.serve", extra="ray")
    ray.init(address="local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    return serve


def echo(serve: Any) -> None:
    """Deploy a plain Ray Serve application that returns its input."""

    class Echo:
        async def __call__(self, request: Any) -> Any:
            return await request.json()

    deployment = serve.deployment(max_ongoing_requests=1000, ray_actor_options={"num_cpus": CPUS})(Echo)
    serve.run(deployment.bind(), name=NAME, route_prefix=f"/{NAME}")


def ours(bundle: str) -> None:
    """Deploy as a user does, with receipts in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIKEWISE_DATA_HOME"] = folder
        from likewise.deployments import deploy

        deploy(bundle, "ray", NAME, {"ray_actor_options": {"num_cpus": CPUS}}, trust=True)


def main() -> None:
    """Deploy and wait for a signal."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    serve = start(int(sys.argv[1]))
    if sys.argv[2] == "echo":
        echo(serve)
    else:
        ours(sys.argv[2])
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
