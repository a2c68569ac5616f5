"""Hosts for tests: this machine, and network namespaces that are connected only to each other."""

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
    """A host for processes. address: its IP address; inside: the command prefix that starts a process there."""

    address: str = LOOPBACK
    inside: tuple[str, ...] = ()


@contextmanager
def two_hosts(name: str, addresses: Sequence[str]) -> Iterator[list[Host]]:
    """Two network namespaces, removed at the end; skips the test if they cannot be created.

    name: a short prefix that no other caller in this process uses.
    """
    if shutil.which("ip") is None:
        pytest.skip("two hosts need the program `ip` (Debian: apt-get install iproute2)")
    with ExitStack() as stop:
        try:
            hosts = _connected(stop, name, addresses)
            subprocess.run([*hosts[0].inside, "true"], check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"two hosts need network namespaces: {error.stderr.strip()}")
        yield hosts


def _connected(stop: ExitStack, name: str, addresses: Sequence[str]) -> list[Host]:
    """Two namespaces connected by a veth pair."""
    spaces = [f"likewise-{name}-{os.getpid()}-{number}" for number in range(2)]
    for space in spaces:
        _ip("netns", "add", space)
        stop.callback(subprocess.run, ["ip", "netns", "del", space], check=False)
    ends = [f"{name}{os.getpid()}v{number}"[-15:] for number in range(2)]  # Linux allows 15 characters
    _ip("link", "add", ends[0], "netns", spaces[0], "type", "veth", "peer", "name", ends[1], "netns", spaces[1])
    for space, end, address in zip(spaces, ends, addresses, strict=True):
        _ip("-n", space, "addr", "add", f"{address}/30", "dev", end)
        _ip("-n", space, "link", "set", end, "up")
        _ip("-n", space, "link", "set", "lo", "up")
    return [Host(address, ("ip", "netns", "exec", space)) for space, address in zip(spaces, addresses, strict=True)]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
