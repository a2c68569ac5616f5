"""`python -m likewise.demo.ray_node CPUS`: a Ray instance with Serve, only for the demo, which ends with this process.

It prints its address as `{"address": "127.0.0.1:PORT"}` when it is ready. Ports and folder are not those of other
instances.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys

import ray
from ray import serve

from likewise.core.scratch import scratch_folder
from likewise.core.stdout import reserve_stdout, stdout

OBJECT_STORE_BYTES = 200_000_000


def main(cpus: int) -> None:
    """Run the instance until SIGTERM, Ctrl-C, or the end of stdin."""
    reserve_stdout()  # Ray's workers inherit file descriptor 1
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with scratch_folder("likewise-ray-") as folder:  # its path is short, as Ray's sockets require
        ray.init(
            address="local",  # not that of RAY_ADDRESS
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder),
        )
        try:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has replaced it
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            stdout().write(json.dumps({"address": ray.get_runtime_context().gcs_address}) + "\n")
            stdout().flush()
            sys.stdin.read()  # ends with the demo, however that ends
        finally:
            ray.shutdown()


if __name__ == "__main__":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main(int(sys.argv[1]))
