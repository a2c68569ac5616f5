"""The images that lie here: an OCI image layout in the cache, and what is remembered of how its layers were made."""

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

from likewise.core.digests import PREFIX, canonical_json, sha256_bytes, sha256_json
from likewise.core.errors import BundleTampered, InputNotFound
from likewise.engine.rates import cache_home
from likewise.images.oci import INDEX, INDEXES, MANIFESTS, NAME, Descriptor, Layer, local_name


@dataclass(frozen=True, slots=True)
class Part:
    """One of our layers, and whether it had to be made now."""

    layer: Layer
    made: bool


class Store:
    """A folder that is an OCI image layout (`oci-layout`, `index.json`, `blobs/`), safe for several processes.

    `known/` beside it says which blob was made of what, so that nothing is made twice.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """folder: `images` in the cache where it is None."""
        self.folder = folder or cache_home() / "images"
        self._blobs = self.folder / "blobs" / "sha256"
        self._blobs.mkdir(parents=True, exist_ok=True)
        (self.folder / "known").mkdir(exist_ok=True)
        layout = self.folder / "oci-layout"
        if not layout.exists():
            layout.write_text('{"imageLayoutVersion":"1.0.0"}')

    # --- blobs -------------------------------------------------------------------------------------------------------

    def path(self, digest: str) -> Path:
        """Where the blob lies, or would."""
        return self._blobs / digest.removeprefix(PREFIX)

    def has(self, blob: Descriptor) -> bool:
        """Whether it lies here whole: a blob gets its name when every byte is there."""
        path = self.path(blob.digest)
        return path.is_file() and path.stat().st_size == blob.size

    def read(self, blob: Descriptor) -> bytes:
        """Its bytes, checked; InputNotFound, BundleTampered."""
        try:
            data = self.path(blob.digest).read_bytes()
        except FileNotFoundError as error:
            raise InputNotFound(f"{self.folder} lacks {blob.digest}", remedy="build the image again") from error
        if sha256_bytes(data) != blob.digest:
            raise BundleTampered(
                f"{self.path(blob.digest)} was changed after it was made", remedy="delete it, and build again"
            )
        return data

    def document(self, blob: Descriptor) -> dict[str, Any]:
        """The JSON in a blob."""
        found: dict[str, Any] = json.loads(self.read(blob))
        return found

    def put(self, media_type: str, document: Mapping[str, object]) -> Descriptor:
        """Keep a JSON document in its one form."""
        data = canonical_json(document)
        blob = Descriptor(media_type, sha256_bytes(data), len(data))
        if not self.has(blob):
            with self.staged() as (stream, keep):
                stream.write(data)
                keep(blob.digest)
        return blob

    @contextlib.contextmanager
    def staged(self) -> Iterator[tuple[BufferedRandom, Callable[[str], None]]]:
        """A file to write a blob into, and what gives it its name when it is whole; gone where that was not called."""
        handle, stage = tempfile.mkstemp(prefix="stage.", dir=self.folder / "blobs")
        kept: list[str] = []
        try:
            with os.fdopen(handle, "w+b") as stream:
                yield stream, kept.append
            if kept:
                Path(stage).chmod(0o644)
                Path(stage).replace(self.path(kept[0]))
        finally:
            Path(stage).unlink(missing_ok=True)

    def layer(self, what: Mapping[str, object], make: Callable[[], Layer]) -> Part:
        """The layer that is made of `what`."""
        found = self.recall("layer", what)
        if found is not None:
            layer = Layer.parse(found)
            if self.has(layer.blob):
                return Part(layer, made=False)
        layer = make()
        self.remember("layer", what, layer.document)
        return Part(layer, made=True)

    def recall(self, kind: str, what: Mapping[str, object]) -> Any:
        """What was remembered of `what`, or None."""
        try:
            return json.loads(self._known(kind, what).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def remember(self, kind: str, what: Mapping[str, object], document: object) -> None:
        """Keep a JSON value until the cache is cleared."""
        path = self._known(kind, what)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as stream:
            json.dump(document, stream)
        Path(stream.name).replace(path)

    def forget(self, kind: str, what: Mapping[str, object]) -> None:
        """What was remembered of `what` counts no more."""
        self._known(kind, what).unlink(missing_ok=True)

    def _known(self, kind: str, what: Mapping[str, object]) -> Path:
        return self.folder / "known" / f"{kind}-{sha256_json(what).removeprefix(PREFIX)}.json"

    # --- names -------------------------------------------------------------------------------------------------------

    def name(self, name: str, blob: Descriptor) -> None:
        """Call an image (manifest or index) `name`; what was called so before has no name any more."""
        with self._lock("index.lock", fcntl.LOCK_EX):
            entries = [e for e in self._entries() if e.get("annotations", {}).get(NAME) != name]
            entries.append({**blob.document, "annotations": {NAME: name}})
            entries.sort(key=lambda entry: str(entry["annotations"][NAME]))
            stage = self.folder / f"index.{os.getpid()}"
            stage.write_text(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, indent=1))
            stage.replace(self.folder / "index.json")

    def find(self, name: str) -> Descriptor:
        """The image called `name`; InputNotFound with what there is."""
        wanted = str(local_name(name))
        held = {entry["annotations"][NAME]: entry for entry in self._entries()}
        if wanted in held:
            return Descriptor.parse(held[wanted])
        there = ", ".join(sorted(held)) or "none"
        raise InputNotFound(
            f"there is no image {wanted} here; there are: {there}", remedy=f"likewise image build MODEL -t {wanted}"
        )

    def _entries(self) -> list[dict[str, Any]]:
        try:
            return list(json.loads((self.folder / "index.json").read_bytes())["manifests"])
        except FileNotFoundError:
            return []

    def reachable(self, image: Descriptor) -> Iterator[Descriptor]:
        """Every blob of an image, each before what names it, itself last."""
        document = self.document(image) if image.media_type in (*INDEXES, *MANIFESTS) else {}
        for key in ("manifests", "layers"):
            for entry in document.get(key, ()):
                yield from self.reachable(Descriptor.parse(entry))
        if "config" in document:
            yield Descriptor.parse(document["config"])
        yield image

    # --- life --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Nothing is dropped meanwhile; afterwards what no name reaches is, where nobody else is at work."""
        with self._lock("use.lock", fcntl.LOCK_SH):
            yield
        with contextlib.suppress(BlockingIOError), self._lock("use.lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
            self._drop_unreachable()

    def _drop_unreachable(self) -> None:
        """Bases stay, as they take long to fetch; a model's layer goes with the last image that has it."""
        kept = {blob.digest for entry in self._entries() for blob in self.reachable(Descriptor.parse(entry))}
        kept |= {
            blob for path in self.folder.glob("known/base-*.json") for blob in json.loads(path.read_bytes())["kept"]
        }
        for path in self._blobs.iterdir():
            if PREFIX + path.name not in kept:
                path.unlink()
        for path in self.folder.glob("blobs/stage.*"):  # of processes that were killed
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lock(self, name: str, how: int) -> Iterator[None]:
        handle = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, how)
            yield
        finally:
            os.close(handle)
