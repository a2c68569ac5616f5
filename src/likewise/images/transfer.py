"""Upload and download of blobs: existing blobs are skipped, and interrupted transfers resume at their offset."""

from __future__ import annotations

import re
from typing import Any, BinaryIO
from urllib.parse import urljoin

from likewise.core.digests import sha256_stream
from likewise.core.errors import InputNotFound, TargetUnavailable
from likewise.core.extras import need
from likewise.core.proxies import proxied
from likewise.images.oci import Descriptor
from likewise.images.registry import TRIES, Registry, TransientError, pull_scope, push_scope, retrying
from likewise.images.store import Store

httpx = need("httpx", extra="images")

CHUNK = 16 << 20  # bytes in one PATCH request


def pull_blob(registry: Registry, repository: str, blob: Descriptor, store: Store) -> None:
    """Download a blob into the store unless it is there; a retry continues at the current offset.

    Raises TargetUnavailable (the download failed or has another digest), InputNotFound, Unauthorized.
    """
    if store.has(blob):
        return
    with store.staged() as (stream, commit):
        path = f"/v2/{repository}/blobs/{blob.digest}"
        try:
            retrying(registry.wait_s)(_fetch, registry, path, pull_scope(repository), stream)
        except (httpx.HTTPError, TransientError) as error:
            raise _interrupted(registry, blob, error) from error
        if sha256_stream(stream) != blob.digest:
            raise TargetUnavailable(
                f"{registry.host} sent a blob that does not match {blob.digest}", remedy="retry, or use another base"
            )
        commit(blob.digest)
    remember_location(store, registry, repository, blob)


def _fetch(registry: Registry, path: str, scope: str, stream: BinaryIO) -> None:
    """Download the remaining bytes to the end of `stream`."""
    headers = {"Range": f"bytes={stream.tell()}-"} if stream.tell() else {}
    response = registry.request_once("GET", path, scope, headers=headers, stream=True)
    try:
        if response.status_code == 404:
            raise InputNotFound(
                f"{registry.host} does not have {path}", remedy="check the name, or push the image there again"
            )
        if response.status_code != 206:  # the registry ignored the range and sends the whole blob
            stream.seek(0)
            stream.truncate()
        registry.require_success(response, path)
        for data in response.iter_raw():
            stream.write(data)
    finally:
        response.close()


def push_blob(registry: Registry, repository: str, blob: Descriptor, store: Store) -> str:
    """Ensure that the registry has the blob; returns `there`, `mounted` (from another repository) or `sent`.

    Raises TargetUnavailable, Unauthorized.
    """
    if registry.has(repository, blob.digest):
        return "there"
    upload = _Upload(registry, repository, blob, store)
    mounted = not upload.resumed and upload.start_session()
    if not mounted:
        try:
            retrying(registry.wait_s)(upload.run)
        except (httpx.HTTPError, TransientError) as error:
            raise _interrupted(registry, blob, error) from error
    remember_location(store, registry, repository, blob)
    return "mounted" if mounted else "sent"


def remember_location(store: Store, registry: Registry, repository: str, blob: Descriptor) -> None:
    """Record that a repository has the blob, so that it can be mounted into other repositories of the registry."""
    store.remember("held", {"registry": registry.host, "digest": blob.digest}, repository)


class _Upload:
    """The upload of one blob. Its session URL is stored, so that a later process can resume it."""

    def __init__(self, registry: Registry, repository: str, blob: Descriptor, store: Store) -> None:
        self._registry, self._repository, self._blob, self._store = registry, repository, blob, store
        self._scope = push_scope(repository)
        self._key = {"registry": registry.host, "repository": repository, "digest": blob.digest}
        self._session_url = store.recall("upload", self._key) or ""
        self._offset = 0
        self.resumed = self._offset_unknown = bool(self._session_url)  # an earlier process started it

    def start_session(self) -> bool:
        """Open an upload session; True if the registry mounted the blob from another repository instead."""
        other = self._store.recall("held", {"registry": self._registry.host, "digest": self._blob.digest})
        params = {"mount": self._blob.digest, "from": other} if other and other != self._repository else {}
        path = f"/v2/{self._repository}/blobs/uploads/"
        response = self._registry.require_success(
            self._registry.request("POST", path, self._scope, params=params), path
        )
        if response.status_code == 201:
            return True
        self._update_session(response)
        self._offset = 0
        return False

    def run(self) -> None:
        """Upload the remaining bytes; called again after an interruption."""
        if self._offset_unknown:
            self._query_offset()
        with self._store.path(self._blob.digest).open("rb") as stream:
            while self._offset < self._blob.size:
                self._send_chunk(stream)
        self._finish()

    def _query_offset(self) -> None:
        """Get the offset from the registry; start over if it no longer knows the session."""
        response = self._registry.request_once("GET", self._session_url, self._scope)
        match = re.fullmatch(r"(?:bytes=)?0-(\d+)", response.headers.get("range", ""))
        if response.status_code not in (202, 204) or match is None:
            self.start_session()
        else:
            self._offset = int(match[1]) + 1 if match[1] != "0" else 0
            self._update_session(response)
        self._offset_unknown = False

    def _send_chunk(self, stream: BinaryIO) -> None:
        stream.seek(self._offset)
        data = stream.read(CHUNK)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{self._offset}-{self._offset + len(data) - 1}",
        }
        self._offset_unknown = True  # until the registry confirms this chunk
        response = self._registry.request_once("PATCH", self._session_url, self._scope, headers=headers, content=data)
        if response.status_code not in (202, 204):
            raise TransientError(f"status {response.status_code} for the chunk at {self._offset}")
        self._offset_unknown = False
        self._offset += len(data)
        self._update_session(response)

    def _finish(self) -> None:
        self._offset_unknown = True
        url = str(httpx.URL(self._session_url).copy_merge_params({"digest": self._blob.digest}))
        response = self._registry.request_once("PUT", url, self._scope, headers={"Content-Length": "0"})
        if response.status_code == 404 and self._registry.has(self._repository, self._blob.digest):
            return  # an earlier PUT succeeded, but its response was lost
        self._registry.require_success(response, url)
        self._store.forget("upload", self._key)

    def _update_session(self, response: Any) -> None:
        """Store the session URL for the next request, which each response may change."""
        location = response.headers.get("location", "")
        self._session_url = urljoin(str(response.url), location) if location else self._session_url
        self._store.remember("upload", self._key, self._session_url)


def _interrupted(registry: Registry, blob: Descriptor, error: Exception) -> TargetUnavailable:
    cause, (via, advice) = str(error) or type(error).__name__, proxied(registry.url)
    return TargetUnavailable(
        f"the transfer of {blob.digest[:19]}… was interrupted {TRIES} times by {registry.host}{via}: {cause}",
        remedy=f"run the same command again: it resumes where it stopped{advice}",
    )
