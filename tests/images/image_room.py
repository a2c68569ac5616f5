"""What image tests stand on: a registry, a wire that can be cut, container engines, a base, a small store."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from likewise.images.layers import Entry, make_layer
from likewise.images.oci import CONFIG, INDEX, MANIFEST, PLATFORMS, Descriptor
from likewise.images.store import Store

AMD64 = PLATFORMS["linux/amd64"]
ARM64 = PLATFORMS["linux/arm64"]
CONFIG_YML = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: 127.0.0.1:{port}}}
log: {{level: error, accesslog: {{disabled: true}}}}
{more}
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def need_program(name: str, package: str) -> str:
    """The program's path; a test that lacks it says so loudly, by failing."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    assert found, f"this test needs {name}: apt-get install {package}"
    return found


def elf(machine: int, text: bytes = b"") -> bytes:
    """The first bytes of a little-endian 64-bit ELF file, and then `text`."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, machine) + text


def base_tar(path: Path, *, machine: int = 62, minor: int = 11, libc: str = "2.36") -> Path:
    """A root file system of next to nothing, with a Python's path and a C library's version."""
    files = {
        f"usr/bin/python3.{minor}": elf(machine),
        "usr/lib/x86_64-linux-gnu/libc.so.6": elf(
            machine, f"GNU C Library (x) stable release version {libc}.".encode()
        ),
    }
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            tar.addfile(member, io.BytesIO(data))
    return path


def small_image(store: Store, name: str, parts: list[bytes], bundle: str = "sha256:" + "ab" * 32) -> Descriptor:
    """An image in the store, whose layers hold one file each."""
    made = [make_layer(store, [Entry.of(f"data/{n}", part)], AMD64, level=0) for n, part in enumerate(parts)]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [m.diff_id for m in made]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": store.put(CONFIG, {**config, "config": {}}).document,
        "layers": [m.blob.document for m in made],
        "annotations": {"likewise.bundle": bundle},
    }
    image = store.put(MANIFEST, manifest)
    store.name(name, image)
    return image


def pair(store: Store, name: str, one: Descriptor, other: Descriptor) -> Descriptor:
    """An index of two images."""
    entries = [
        {**one.document, "platform": AMD64.document},
        {**other.document, "platform": ARM64.document},
    ]
    image = store.put(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    store.name(name, image)
    return image


@contextlib.contextmanager
def registry(folder: Path, more: str = "") -> Iterator[str]:
    """A real registry on loopback; `127.0.0.1:PORT`."""
    program, port = need_program("docker-registry", "docker-registry"), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "config.yml"
    settings.write_text(CONFIG_YML.format(root=folder / "data", port=port, more=more))
    with (folder / "log").open("w") as log, process([program, "serve", str(settings)], log) as child:
        await_http(f"http://127.0.0.1:{port}/v2/", child)
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def process(command: list[str], log: io.TextIOWrapper) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def await_http(url: str, child: subprocess.Popen[bytes]) -> None:
    """Until it answers, whatever it answers."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert child.poll() is None, "it ended before it answered"
        try:
            urllib.request.urlopen(url, timeout=10)  # noqa: S310
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"{url} does not answer")


class Wire:
    """A TCP relay to `target` which drops every connection once `limit` more bytes went towards it."""

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.limits: list[int] = []  # one a cut, in turn
        self.passed = 0
        self.back = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection(self._target)
                for way in ((ours, theirs, True), (theirs, ours, False)):
                    threading.Thread(target=self._relay, args=way, daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, forth: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if forth and self._cut(len(data)):
                    break
                if not forth:
                    self.back += len(data)
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _cut(self, size: int) -> bool:
        with self._lock:
            self.passed += size
            if not self.limits:
                return False
            self.limits[0] -= size
            if self.limits[0] > 0:
                return False
            self.limits.pop(0)
            return True


def likewise(*arguments: str, cache: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "likewise.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "LIKEWISE_CACHE_HOME": str(cache), **(env or {})},
        timeout=600,
    )


@pytest.fixture
def images(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "images")
