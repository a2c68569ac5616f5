"""The options of a deployment in a container."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from likewise.core.errors import WrongUsage
from likewise.core.option_fields import option
from likewise.images.base import DEFAULT
from likewise.images.build import USER

LOOPBACK = ("127.0.0.1", "localhost")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MEMORY = re.compile(r"[1-9]\d*[bkmg]?", re.IGNORECASE)
_USER = re.compile(r"[1-9]\d{0,9}:\d{1,10}")
_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_RESERVED = {"LIKEWISE_HOST": "host", "LIKEWISE_PORT": "port", "SAGEMAKER_BIND_TO_PORT": "port"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerTargetOptions:
    """The options of the target; those ending in `_s` are in seconds."""

    image: str | None = option(None, "An existing image of this model; without it, an image is built.")
    base: str = option(DEFAULT, "Base image: an image in a registry, a folder with an OCI layout, or a tar file.")
    wheels: Path | None = option(None, "Folder of wheels that are not in a package index, for a built image.")
    lock: Path | None = option(None, "Requirements file with hashes of all packages of a built image.")
    host: str = option("127.0.0.1", "Address of this machine to listen on.")
    insecure: bool = option(False, "Allow an address that other machines can reach; the service has no authentication.")
    port: int = option(0, "Port of this machine; 0 chooses a free port, which updates keep.", min=0, max=65535)
    network: str | None = option(None, "Network of the containers: a name, or host if networks cannot be created.")
    isolated: bool = option(False, "Run the model without network access; clients can still reach it.")
    memory: str | None = option(None, "Memory limit of the model's container: 2g, 512m.")
    cpus: float | None = option(None, "CPU limit of the model's container: 1.5.", min=0.01)
    env: Mapping[str, str] = option(
        dict, "Environment variables, as JSON; those that start with LIKEWISE_ set the server's options."
    )
    user: str = option(USER, "UID:GID of the container processes, not root; it needs no entry in /etc/passwd.")
    restart: Literal["unless-stopped", "on-failure", "no"] = option(
        "unless-stopped", "When Docker or Podman restarts a container that has exited."
    )
    start_timeout_s: float = option(
        120.0, "Seconds allowed for loading and warming up the model before a start fails.", min=0.001
    )
    stop_timeout_s: int = option(
        30, "Seconds to complete requests in flight before a stopping container is killed.", min=0
    )


def check_options(options: ContainerTargetOptions) -> None:
    """Raise WrongUsage for values with which no container can be started."""
    checks = (
        (not 0 <= options.port < 65536, "port", options.port, "use a port from 0 to 65535: -C port=5000"),
        (
            options.memory is not None and not _MEMORY.fullmatch(options.memory),
            "memory",
            options.memory,
            "use for example -C memory=2g",
        ),
        (options.cpus is not None and not 0 < options.cpus < 4096, "cpus", options.cpus, "use for example -C cpus=1.5"),
        (
            not _USER.fullmatch(options.user),
            "user",
            options.user,
            "use a numeric UID:GID, not root: -C user=65532:65532",
        ),
        (not re.fullmatch(r"[0-9.]+|localhost", options.host), "host", options.host, "use an IPv4 address"),
        (not options.start_timeout_s > 0, "start_timeout_s", options.start_timeout_s, "use a number above 0"),
        (not options.stop_timeout_s > 0, "stop_timeout_s", options.stop_timeout_s, "use a number above 0"),
        (
            options.network is not None and (options.network == "none" or not _NETWORK.fullmatch(options.network)),
            "network",
            options.network,
            "choose a network that clients can reach; to run the model without network access, use -C isolated=true",
        ),
    )
    for is_wrong, name, value, remedy in checks:
        if is_wrong:
            raise WrongUsage(f"option {name!r} is {value!r}, which is not valid", remedy=remedy)
    if options.host not in LOOPBACK and not options.insecure:
        raise WrongUsage(
            f"{options.host} can be reached from other machines, and the service has no authentication",
            remedy="add -C insecure=true if a proxy controls access, or omit host",
        )
    _check_variables(options.env)


def _check_variables(env: Mapping[str, Any]) -> None:
    from likewise.container.settings import read_options  # imported late, because other plans do not need it

    for name, value in env.items():
        if not _VARIABLE.fullmatch(name) or not isinstance(value, str) or "\0" in value:
            raise WrongUsage(f"env sets {name!r} to {value!r}", remedy="""use -C env='{"NAME": "value"}'""")
        if name in _RESERVED:
            raise WrongUsage(f"env sets {name}", remedy=f"use the option {_RESERVED[name]!r} instead")
        if name == "LIKEWISE_CAPTURE":
            raise WrongUsage(
                "env sets LIKEWISE_CAPTURE, but these containers can write no files",
                remedy="run the image yourself, with a volume for the captured requests, or deploy to local",
            )
    read_options(env)
