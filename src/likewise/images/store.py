"""The local image store: an OCI image layout in the cache, plus an index of what each layer was built from."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any

from likewise.bundles.cache import cache_folder
from likewise.core.digests import PREFIX, canonical_json, sha256_bytes, sha256_json
from likewise.core.errors import BundleTampered, InputNotFound
from likewise.core.private_files import open_private, write_private
from likewise.images.oci import INDEX, INDEXES, MANIFESTS, NAME, Descriptor, Layer, local_name


@dataclass(frozen=True, slots=True)
class Part:
    """A layer that Likewise builds; made is False if it came from the cache."""

    layer: Layer
    made: bool


class Store:
    """A folder that is an OCI image layout (`oci-layout`, `index.json`, `blobs/`), safe for several processes.

    Its folder `known/` maps build inputs to blobs, so that nothing is built twice.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """folder: defaults to `images` in Likewise's cache."""
        self.folder = folder or cache_folder("images")
        self._blobs = self.folder / "blobs" / "sha256"
        self._blobs.mkdir(parents=True, exist_ok=True)
        (self.folder / "known").mkdir(exist_ok=True)
        layout = self.folder / "oci-layout"
        if not layout.exists():
            write_private(layout, '{"imageLayoutVersion":"1.0.0"}')

    # --- blobs -------------------------------------------------------------------------------------------------------

    def path(self, digest: str) -> Path:
        """The blob's path, whether or not it exists."""
        return self._blobs / digest.removeprefix(PREFIX)

    def has(self, blob: Descriptor) -> bool:
        """Whether the blob is stored completely: a blob gets its final name only after every byte is written."""
        path = self.path(blob.digest)
        return path.is_file() and path.stat().st_size == blob.size

    def read(self, blob: Descriptor) -> bytes:
        """The blob's bytes, verified; raises InputNotFound, BundleTampered."""
        try:
            data = self.path(blob.digest).read_bytes()
        except FileNotFoundError as error:
            raise InputNotFound(f"{blob.digest} is missing in {self.folder}", remedy="build the image again") from error
        if sha256_bytes(data) != blob.digest:
            raise BundleTampered(
                f"{self.path(blob.digest)} was modified after it was written", remedy="delete it and build again"
            )
        return data

    def document(self, blob: Descriptor) -> dict[str, Any]:
        """Parse a JSON blob."""
        document: dict[str, Any] = json.loads(self.read(blob))
        return document

    def put(self, media_type: str, document: Mapping[str, object]) -> Descriptor:
        """Store a JSON document in canonical form, so that equal documents get equal digests."""
        data = canonical_json(document)
        blob = Descriptor(media_type, sha256_bytes(data), len(data))
        if not self.has(blob):
            with self.staged() as (stream, commit):
                stream.write(data)
                commit(blob.digest)
        return blob

    @contextlib.contextmanager
    def staged(self) -> Iterator[tuple[BufferedRandom, Callable[[str], None]]]:
        """A temporary file for a new blob, and `commit(digest)` for when it is complete; deleted unless committed."""
        handle, stage = tempfile.mkstemp(prefix="stage.", dir=self.folder / "blobs")
        committed: list[str] = []
        try:
            with os.fdopen(handle, "w+b") as stream:
                yield stream, committed.append
            if committed:
                Path(stage).chmod(0o644)
                Path(stage).replace(self.path(committed[0]))
        finally:
            Path(stage).unlink(missing_ok=True)

    def layer(self, inputs: Mapping[str, object], build: Callable[[], Layer]) -> Part:
        """The cached layer of these build inputs, else the one that `build` returns."""
        document = self.recall("layer", inputs)
        if document is not None:
            layer = Layer.parse(document)
            if self.has(layer.blob):
                return Part(layer, made=False)
        layer = build()
        self.remember("layer", inputs, layer.document)
        return Part(layer, made=True)

    def recall(self, kind: str, key: Mapping[str, object]) -> Any:
        """The JSON value stored under `key`, or None."""
        try:
            return json.loads(self._known(kind, key).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def remember(self, kind: str, key: Mapping[str, object], document: object) -> None:
        """Store a JSON value under `key` until the cache is cleared."""
        write_private(self._known(kind, key), json.dumps(document))

    def forget(self, kind: str, key: Mapping[str, object]) -> None:
        """Delete the value stored under `key`, if any."""
        self._known(kind, key).unlink(missing_ok=True)

    def _known(self, kind: str, key: Mapping[str, object]) -> Path:
        return self.folder / "known" / f"{kind}-{sha256_json(key).removeprefix(PREFIX)}.json"

    # --- names -------------------------------------------------------------------------------------------------------

    def name(self, name: str, blob: Descriptor) -> None:
        """Name an image (manifest or index); an image that had this name before loses it."""
        with self._lock("index.lock", fcntl.LOCK_EX):
            entries = [e for e in self._entries() if e.get("annotations", {}).get(NAME) != name]
            entries.append({**blob.document, "annotations": {NAME: name}})
            entries.sort(key=lambda entry: str(entry["annotations"][NAME]))
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
            write_private(self.folder / "index.json", json.dumps(index, indent=1))

    def find(self, name: str) -> Descriptor:
        """The image with this name; raises InputNotFound, which lists the existing names."""
        wanted = str(local_name(name))
        entries = {entry["annotations"][NAME]: entry for entry in self._entries()}
        if wanted in entries:
            return Descriptor.parse(entries[wanted])
        existing = ", ".join(sorted(entries)) or "none"
        raise InputNotFound(
            f"no local image {wanted}; existing images: {existing}", remedy=f"likewise image build MODEL -t {wanted}"
        )

    def _entries(self) -> list[dict[str, Any]]:
        try:
            return list(json.loads((self.folder / "index.json").read_bytes())["manifests"])
        except FileNotFoundError:
            return []

    def reachable(self, image: Descriptor) -> Iterator[Descriptor]:
        """Every blob of an image, each before the documents that refer to it; the image itself comes last."""
        document = self.document(image) if image.media_type in (*INDEXES, *MANIFESTS) else {}
        for key in ("manifests", "layers"):
            for entry in document.get(key, ()):
                yield from self.reachable(Descriptor.parse(entry))
        if "config" in document:
            yield Descriptor.parse(document["config"])
        yield image

    # --- garbage collection ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Prevents deletion of blobs; on exit deletes unreferenced blobs unless another process uses the store."""
        with self._lock("use.lock", fcntl.LOCK_SH):
            yield
        with contextlib.suppress(BlockingIOError), self._lock("use.lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
            self._drop_unreachable()

    def _drop_unreachable(self) -> None:
        """Keeps bases, since they take long to fetch; a model's layer is deleted with the last image that has it."""
        referenced = {blob.digest for entry in self._entries() for blob in self.reachable(Descriptor.parse(entry))}
        referenced |= {
            blob for path in self.folder.glob("known/base-*.json") for blob in json.loads(path.read_bytes())["kept"]
        }
        for path in self._blobs.iterdir():
            if PREFIX + path.name not in referenced:
                path.unlink()
        for path in self.folder.glob("blobs/stage.*"):  # of processes that were killed
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lock(self, name: str, mode: int) -> Iterator[None]:
        handle = open_private(self.folder / name)
        try:
            fcntl.flock(handle, mode)
            yield
        finally:
            os.close(handle)
