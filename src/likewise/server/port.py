"""Bind the port before the slow startup work."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from pathlib import Path

from likewise.core.errors import PortTaken, WrongUsage

_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp
BACKLOG = 2048


def listen(host: str, port: int, *, guarded: bool = False) -> socket.socket:
    """A socket listening on `host` and `port` (0: any free port).

    Raises PortTaken, which names the listening process if it can be determined, and WrongUsage for an address that is
    not this machine's, or that other machines can reach unless it is `guarded`: by tokens or by a proxy in front of it.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, OverflowError) as error:
        raise WrongUsage(
            f"cannot listen on {host}:{port}: {error}",
            remedy="use a host name or address of this machine, and a port up to 65535",
        ) from error
    if not guarded and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise WrongUsage(
            f"{host} is reachable from other machines, but the service has no authentication",
            remedy="add --token-file FILE, or --insecure if a proxy in front guards it, or listen on 127.0.0.1",
        )
    sock = socket.socket(family, kind, proto)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _refused(host, port, error) from error
    return sock


def url_of(sock: socket.socket) -> str:
    """The URL `http://HOST:PORT` of a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _refused(host: str, port: int, error: OSError) -> PortTaken | WrongUsage:
    if error.errno != errno.EADDRINUSE:
        reason = error.strerror or str(error)
        return WrongUsage(f"cannot listen on {host}:{port}: {reason}", remedy="choose another address or port: -h, -p")
    process = listening_process(port)
    by = f" by {process}" if process else ""
    stop = f"stop {process}, or " if process else ""
    return PortTaken(f"port {port} of {host} is in use{by}", remedy=f"{stop}choose another port: -p {port + 1}")


def listening_process(port: int) -> str | None:
    """`NAME (process PID)` of the process listening on `port`, or None if /proc (Linux) does not show it."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    for link in Path("/proc").glob("[0-9]*/fd/*") if sockets else ():
        try:
            if os.readlink(link) in sockets:
                folder = link.parents[1]
                return f"{(folder / 'comm').read_text().strip()} (process {folder.name})"
        except OSError:
            continue
    return None


def _inodes(port: int) -> list[str]:
    inodes = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        entries = [line.split() for line in lines]
        inodes += [e[9] for e in entries if e[3] == _LISTEN and int(e[1].rpartition(":")[2], 16) == port]
    return inodes
