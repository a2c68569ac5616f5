"""Blobs to and from a registry: what is there is not sent, and what was cut off goes on where it was."""

from __future__ import annotations

import re
from typing import Any, BinaryIO
from urllib.parse import urljoin

from likewise.core.digests import sha256_stream
from likewise.core.errors import InputNotFound, TargetUnavailable
from likewise.core.extras import need
from likewise.images.oci import Descriptor
from likewise.images.registry import TRIES, Passing, Registry, pull_scope, push_scope, retrying
from likewise.images.store import Store

httpx = need("httpx", extra="images")

CHUNK = 16 << 20  # bytes a request; a registry may ask for more at a time


def pull_blob(registry: Registry, repository: str, blob: Descriptor, store: Store) -> None:
    """Fetch a blob into the store unless it is there; after a cut, from where it was.

    Raises TargetUnavailable (it does not come, or other bytes come), InputNotFound, Unauthorized.
    """
    if store.has(blob):
        return
    with store.staged() as (stream, keep):
        where = f"/v2/{repository}/blobs/{blob.digest}"
        try:
            retrying(registry.wait_s)(_fetch, registry, where, pull_scope(repository), stream)
        except (httpx.HTTPError, Passing) as error:
            raise _cut(registry, blob, error) from error
        if sha256_stream(stream) != blob.digest:
            raise TargetUnavailable(
                f"{registry.host} sent other bytes than {blob.digest} names", remedy="try again, or use another base"
            )
        keep(blob.digest)
    held_at(store, registry, repository, blob)


def _fetch(registry: Registry, where: str, scope: str, stream: BinaryIO) -> None:
    """Add what is missing to `stream`."""
    headers = {"Range": f"bytes={stream.tell()}-"} if stream.tell() else {}
    answer = registry.once("GET", where, scope, headers=headers, stream=True)
    try:
        if answer.status_code == 404:
            raise InputNotFound(
                f"{registry.host} lacks {where}", remedy="check the name, or push the image there again"
            )
        if answer.status_code != 206:  # all of it comes again
            stream.seek(0)
            stream.truncate()
        registry.good(answer, where)
        for data in answer.iter_raw():
            stream.write(data)
    finally:
        answer.close()


def push_blob(registry: Registry, repository: str, blob: Descriptor, store: Store) -> str:
    """See that the registry has the blob: `there`, `mounted` (from another repository of it) or `sent`.

    Raises TargetUnavailable, Unauthorized.
    """
    if registry.has(repository, blob.digest):
        return "there"
    upload = _Upload(registry, repository, blob, store)
    done = "" if upload.begun else upload.begin()
    if not done:
        try:
            retrying(registry.wait_s)(upload.run)
        except (httpx.HTTPError, Passing) as error:
            raise _cut(registry, blob, error) from error
    held_at(store, registry, repository, blob)
    return done or "sent"


def held_at(store: Store, registry: Registry, repository: str, blob: Descriptor) -> None:
    """Remember a repository that has the blob: others of the registry can take it from there."""
    store.remember("held", {"registry": registry.host, "digest": blob.digest}, repository)


class _Upload:
    """One blob on its way. The place that the registry gave for it is remembered, for a process that comes after."""

    def __init__(self, registry: Registry, repository: str, blob: Descriptor, store: Store) -> None:
        self._registry, self._repository, self._blob, self._store = registry, repository, blob, store
        self._scope = push_scope(repository)
        self._key = {"registry": registry.host, "repository": repository, "digest": blob.digest}
        self._where = store.recall("upload", self._key) or ""
        self._offset = 0
        self.begun = self._unsure = bool(self._where)  # by an earlier process

    def begin(self) -> str:
        """Ask for a place, or for the blob of another repository: `mounted` where that did it."""
        other = self._store.recall("held", {"registry": self._registry.host, "digest": self._blob.digest})
        params = {"mount": self._blob.digest, "from": other} if other and other != self._repository else {}
        path = f"/v2/{self._repository}/blobs/uploads/"
        answer = self._registry.good(self._registry.ask("POST", path, self._scope, params=params), path)
        if answer.status_code == 201:
            return "mounted"
        self._move(answer)
        self._offset = 0
        return ""

    def run(self) -> None:
        """Send what is missing; called again after a cut."""
        if self._unsure:
            self._look()
        with self._store.path(self._blob.digest).open("rb") as stream:
            while self._offset < self._blob.size:
                self._send_chunk(stream)
        self._finish()

    def _look(self) -> None:
        """How far it is, by the registry's own word; from the beginning where it has forgotten."""
        answer = self._registry.once("GET", self._where, self._scope)
        found = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.headers.get("range", ""))
        if answer.status_code not in (202, 204) or found is None:
            self.begin()
        else:
            self._offset = int(found[1]) + 1 if found[1] != "0" else 0
            self._move(answer)
        self._unsure = False

    def _send_chunk(self, stream: BinaryIO) -> None:
        stream.seek(self._offset)
        data = stream.read(CHUNK)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{self._offset}-{self._offset + len(data) - 1}",
        }
        self._unsure = True  # until it has said that it has this part
        answer = self._registry.once("PATCH", self._where, self._scope, headers=headers, content=data)
        if answer.status_code not in (202, 204):
            raise Passing(f"{answer.status_code} to a part at {self._offset}")
        self._unsure = False
        self._offset += len(data)
        self._move(answer)

    def _finish(self) -> None:
        self._unsure = True
        where = str(httpx.URL(self._where).copy_merge_params({"digest": self._blob.digest}))
        answer = self._registry.once("PUT", where, self._scope, headers={"Content-Length": "0"})
        if answer.status_code == 404 and self._registry.has(self._repository, self._blob.digest):
            return  # it was finished, and only the word of it was lost
        self._registry.good(answer, where)
        self._store.forget("upload", self._key)

    def _move(self, answer: Any) -> None:
        """Where the next part goes: each answer says."""
        location = answer.headers.get("location", "")
        self._where = urljoin(str(answer.url), location) if location else self._where
        self._store.remember("upload", self._key, self._where)


def _cut(registry: Registry, blob: Descriptor, error: Exception) -> TargetUnavailable:
    why = str(error) or type(error).__name__
    return TargetUnavailable(
        f"the connection to {registry.host} was cut at {blob.digest[:19]}…, {TRIES} times: {why}",
        remedy="run the same command again: it goes on where it was",
    )
