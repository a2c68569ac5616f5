"""Push of an image to a registry: layers first, then the manifests that refer to them, the tag last."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import timedelta

from likewise.core.digests import PREFIX
from likewise.core.errors import AlreadyDeployed, InputInvalid, WrongUsage
from likewise.images.build import OnProgress, silent
from likewise.images.credentials import Credentials
from likewise.images.oci import INDEXES, MANIFESTS, Descriptor, ImageName, parse_name
from likewise.images.registry import Registry, push_scope
from likewise.images.store import Store
from likewise.images.transfer import push_blob


@dataclass(frozen=True, slots=True)
class Pushed:
    """The pushed image; blobs: number of blobs by outcome (`sent`, `mounted`, or `there` if the registry had them)."""

    name: str
    digest: str
    sent_bytes: int
    blobs: dict[str, int]

    @property
    def pinned(self) -> str:
        """The image's immutable name, by digest."""
        return f"{self.name.rpartition(':')[0]}@{self.digest}"


def push_image(
    name: str,
    to: str,
    *,
    store: Store | None = None,
    credentials: Credentials | None = None,
    report: OnProgress = silent,
    wait_s: float = 0.5,
) -> Pushed:
    """Push the local image `name` to `to`, REGISTRY/NAME[:TAG].

    Without a tag, the tag is the bundle's digest (`sha256-…`), which is never moved to another image.
    credentials: Docker's if None. wait_s: delay before the first retry of a transient failure.
    Raises InputNotFound (no such image), AlreadyDeployed (the tag refers to another image), WrongUsage, Unauthorized,
    TargetUnavailable. Run again, it resumes where it stopped.
    """
    store = store or Store()
    target = parse_name(to)
    if not target.registry or target.digest:
        raise WrongUsage(f"{to!r} does not name a registry, or contains a digest", remedy="use REGISTRY/NAME:TAG")
    image = store.find(name)
    immutable, target = not target.tag, target if target.tag else replace(target, tag=bundle_tag(store, image))
    with store.used(), Registry(target.registry, credentials, wait_s=wait_s) as registry:
        if immutable:
            _require_tag_free(registry, target, image)
        counts, sent, done, started_at = {"sent": 0, "mounted": 0, "there": 0}, 0, 0, time.monotonic()
        blobs = list(dict.fromkeys(store.reachable(image)))
        total = sum(blob.size for blob in blobs if blob.media_type not in (*INDEXES, *MANIFESTS))
        for blob in blobs:
            if blob.media_type in (*INDEXES, *MANIFESTS):
                _put_manifest(registry, target, blob, store, last=blob == image)
                continue
            outcome = push_blob(registry, target.repository, blob, store)
            counts[outcome] += 1
            sent += blob.size if outcome == "sent" else 0
            done += blob.size
            left = timedelta(seconds=round((time.monotonic() - started_at) * (total - done) / max(done, 1)))
            report(f"{done / 1e6:.1f} of {total / 1e6:.1f} MB, {left} left; {blob.digest[:19]}… {outcome}")
    return Pushed(str(target), image.digest, sent, counts)


def bundle_tag(store: Store, image: Descriptor) -> str:
    """The tag for an image's bundle: its build digest with `sha256-` for `sha256:`, since tags have no colon."""
    document = store.document(image)
    manifests = [Descriptor.parse(entry) for entry in document.get("manifests", ())] or [image]
    annotations = [store.document(each).get("annotations", {}) for each in manifests]
    bundles = {each.get("likewise.build") or each.get("likewise.bundle") for each in annotations}
    if len(bundles) != 1 or None in bundles:
        raise InputInvalid("the image has no label with its bundle", remedy="give a tag, or build it again")
    return str(bundles.pop()).replace(PREFIX, "sha256-")


def _require_tag_free(registry: Registry, target: ImageName, image: Descriptor) -> None:
    if registry.has(target.repository, target.tag, "manifests"):
        existing = registry.manifest(target).blob.digest
        if existing != image.digest:
            raise AlreadyDeployed(
                f"{target} already exists with the same bundle in another image ({existing[:19]}…: different base, "
                "environment or version of Likewise)",
                remedy="use that image, or choose a tag for this one: REGISTRY/NAME:TAG",
            )


def _put_manifest(registry: Registry, target: ImageName, blob: Descriptor, store: Store, *, last: bool) -> None:
    path = f"/v2/{target.repository}/manifests/{target.reference if last else blob.digest}"
    headers = {"Content-Type": blob.media_type}
    response = registry.request("PUT", path, push_scope(target.repository), headers=headers, content=store.read(blob))
    registry.require_success(response, path)
