"""An image of the store goes to a registry: layers first, then what names them, the tag last."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    """Where it lies now, and what that took: bytes that were sent, and blobs by `sent`, `mounted` or `there`."""

    name: str
    digest: str
    sent_bytes: int
    blobs: dict[str, int]

    @property
    def pinned(self) -> str:
        """The name that means these bytes for ever."""
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
    """Push the image called `name` here `to` REGISTRY/NAME[:TAG].

    Without a tag it gets its bundle's digest as one (`sha256-…`), which is never given to another image.
    credentials: Docker's own where it is None. wait_s: before the first retry of what fails in passing.
    Raises InputNotFound (no such image), AlreadyDeployed (that tag holds another image), WrongUsage, Unauthorized,
    TargetUnavailable; run again, it goes on where it was.
    """
    store = store or Store()
    target = parse_name(to)
    if not target.registry or target.digest:
        raise WrongUsage(f"{to!r} does not say which registry", remedy="write REGISTRY/NAME:TAG")
    image = store.find(name)
    fixed, target = not target.tag, target if target.tag else replace(target, tag=bundle_tag(store, image))
    with store.used(), Registry(target.registry, credentials, wait_s=wait_s) as registry:
        if fixed:
            _not_another(registry, target, image)
        counts, sent = {"sent": 0, "mounted": 0, "there": 0}, 0
        for blob in dict.fromkeys(store.reachable(image)):
            if blob.media_type in (*INDEXES, *MANIFESTS):
                _put_manifest(registry, target, blob, store, last=blob == image)
                continue
            how = push_blob(registry, target.repository, blob, store)
            counts[how] += 1
            sent += blob.size if how == "sent" else 0
            report(f"{blob.digest[:19]}… {blob.size / 1e6:.1f} MB: {how}")
    return Pushed(str(target), image.digest, sent, counts)


def bundle_tag(store: Store, image: Descriptor) -> str:
    """The tag that stands for the bundle in an image: its digest, spelled as a tag may be."""
    document = store.document(image)
    inner = [Descriptor.parse(entry) for entry in document.get("manifests", ())]
    found = {store.document(each).get("annotations", {}).get("likewise.bundle") for each in inner or [image]}
    if len(found) != 1 or None in found:
        raise InputInvalid("the image does not say which bundle it holds", remedy="give a tag, or build it again")
    return str(found.pop()).replace(PREFIX, "sha256-")


def _not_another(registry: Registry, target: ImageName, image: Descriptor) -> None:
    if registry.has(target.repository, target.tag, "manifests"):
        there = registry.manifest(target).blob.digest
        if there != image.digest:
            raise AlreadyDeployed(
                f"{target} is there already, with the same bundle in another image ({there[:19]}…: another base, "
                "environment or version of Likewise)",
                remedy="use that one, or give this one a tag of your own: REGISTRY/NAME:TAG",
            )


def _put_manifest(registry: Registry, target: ImageName, blob: Descriptor, store: Store, *, last: bool) -> None:
    where = f"/v2/{target.repository}/manifests/{target.at if last else blob.digest}"
    headers = {"Content-Type": blob.media_type}
    answer = registry.ask("PUT", where, push_scope(target.repository), headers=headers, content=store.read(blob))
    registry.good(answer, where)
