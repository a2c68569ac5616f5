"""What can be set of a deployment in a container."""

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
_OURS = {"LIKEWISE_HOST": "host", "LIKEWISE_PORT": "port", "SAGEMAKER_BIND_TO_PORT": "port"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerTargetOptions:
    """Seconds as their names say."""

    image: str | None = option(None, "An image of this model that is there already; without it, one is built.")
    base: str = option(DEFAULT, "What a built image stands on: an image in a registry, or a folder or tar of one.")
    wheels: Path | None = option(None, "Folder of wheels that no index has, for a built image.")
    lock: Path | None = option(None, "Requirements file with hashes of all that goes into a built image.")
    host: str = option("127.0.0.1", "Address of this machine to listen on.")
    insecure: bool = option(False, "Listen where other machines reach it, though it asks nobody who they are.")
    port: int = option(0, "Port of this machine; 0 finds a free one and keeps it.")
    network: str | None = option(
        None, "Network of the containers: a name, or host where they can have none of their own."
    )
    isolated: bool = option(False, "The model reaches no network at all; its callers reach it all the same.")
    memory: str | None = option(None, "Most memory of the model's container: 2g, 512m.")
    cpus: float | None = option(None, "Most cores of the model's container: 1.5.")
    env: Mapping[str, str] = option(dict, "Variables, as JSON; those of LIKEWISE_ set the server's options.")
    user: str = option(USER, "UID:GID that runs in the containers, not root; it needs no entry in /etc/passwd.")
    restart: Literal["unless-stopped", "on-failure", "no"] = option(
        "unless-stopped", "When the engine starts a container again that has ended."
    )
    start_timeout_s: float = option(120.0, "Seconds for the model to be loaded and warm; a longer start is a failure.")
    stop_timeout_s: int = option(30, "Seconds for requests in flight, before a container that stops is killed.")


def check_options(options: ContainerTargetOptions) -> None:
    """Raises WrongUsage for what no container could be started with."""
    wrong = (
        (not 0 <= options.port < 65536, "port", options.port, "-C port=5000"),
        (options.memory is not None and not _MEMORY.fullmatch(options.memory), "memory", options.memory, "memory=2g"),
        (options.cpus is not None and not 0 < options.cpus < 4096, "cpus", options.cpus, "-C cpus=1.5"),
        (
            not _USER.fullmatch(options.user),
            "user",
            options.user,
            "give UID:GID in numbers, not root: user=65532:65532",
        ),
        (not re.fullmatch(r"[0-9.]+|localhost", options.host), "host", options.host, "give an IPv4 address"),
        (not options.start_timeout_s > 0, "start_timeout_s", options.start_timeout_s, "give a number above 0"),
        (not options.stop_timeout_s > 0, "stop_timeout_s", options.stop_timeout_s, "give a number above 0"),
        (
            options.network is not None and (options.network == "none" or not _NETWORK.fullmatch(options.network)),
            "network",
            options.network,
            "name a network that callers reach; isolated=true keeps the model away from it",
        ),
    )
    for is_wrong, name, value, remedy in wrong:
        if is_wrong:
            raise WrongUsage(f"option {name!r} is {value!r}", remedy=remedy)
    if options.host not in LOOPBACK and not options.insecure:
        raise WrongUsage(
            f"{options.host} can be reached from other machines, and the service asks nobody who they are",
            remedy="add -C insecure=true where something in front guards it, or leave host out",
        )
    _check_variables(options.env)


def _check_variables(env: Mapping[str, Any]) -> None:
    from likewise.container.settings import read_options  # loads the server's options, which no plan else needs

    for name, value in env.items():
        if not _VARIABLE.fullmatch(name) or not isinstance(value, str) or "\0" in value:
            raise WrongUsage(f"env sets {name!r} to {value!r}", remedy="""-C env='{"NAME": "value"}'""")
        if name in _OURS:
            raise WrongUsage(f"env sets {name}", remedy=f"the option {_OURS[name]!r} does that")
    read_options(env)
