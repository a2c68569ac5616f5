"""Hosts of a test: this machine, and network namespaces with a cable between them and no way out."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Host:
    """Where processes run. address: what others reach it by; inside: the command that starts a process there."""

    address: str = LOOPBACK
    inside: tuple[str, ...] = ()


@contextmanager
def two_hosts(name: str, addresses: Sequence[str]) -> Iterator[list[Host]]:
    """Two namespaces, gone at the end; the test is skipped where the kernel or the user may not make any.

    name: a few letters that no other caller of this process uses.
    """
    if shutil.which("ip") is None:
        pytest.skip("no `ip` here (Debian: apt-get install iproute2), so there are no two hosts")
    with ExitStack() as stop:
        try:
            made = _connected(stop, name, addresses)
            subprocess.run([*made[0].inside, "true"], check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here, so there are no two hosts: {error.stderr.strip()}")
        yield made


def _connected(stop: ExitStack, name: str, addresses: Sequence[str]) -> list[Host]:
    """Two namespaces with a pair of veth between them."""
    spaces = [f"likewise-{name}-{os.getpid()}-{number}" for number in range(2)]
    for space in spaces:
        _ip("netns", "add", space)
        stop.callback(subprocess.run, ["ip", "netns", "del", space], check=False)
    ends = [f"{name}{os.getpid()}v{number}"[-15:] for number in range(2)]  # Linux takes 15 characters
    _ip("link", "add", ends[0], "netns", spaces[0], "type", "veth", "peer", "name", ends[1], "netns", spaces[1])
    for space, end, address in zip(spaces, ends, addresses, strict=True):
        _ip("-n", space, "addr", "add", f"{address}/30", "dev", end)
        _ip("-n", space, "link", "set", end, "up")
        _ip("-n", space, "link", "set", "lo", "up")
    return [Host(address, ("ip", "netns", "exec", space)) for space, address in zip(spaces, addresses, strict=True)]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
