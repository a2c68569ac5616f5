"""The Python environment that workers lack: what is installed here and an engine needs, as one archive."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from types import MappingProxyType
from typing import Any

from likewise.core.digests import sha256_bytes, sha256_json
from likewise.core.errors import MissingExtra, WrongUsage
from likewise.core.extras import need
from likewise.shipping.unpack import here, package_digest, package_files

OURS = "likewise"
NOTHING: Mapping[str, Any] = MappingProxyType({})
KEPT_S = 7 * 24 * 3600.0
PACKAGE = Path(__file__).parents[1]  # our own, wherever it is installed


@dataclass(frozen=True, slots=True)
class PackedEnvironment:
    """Installed packages, for the Python and the platform that `here` tells.

    distributions: by canonical name. key: digest of our own sources and of every other distribution's RECORD, which
    holds the hash of each of its files. package: digest of our own sources.
    """

    distributions: dict[str, Distribution]
    key: str
    package: str

    @property
    def versions(self) -> dict[str, str]:
        """Of every distribution but ours."""
        return {name: each.version for name, each in self.distributions.items() if name != OURS}

    def archive(self, folder: Path) -> Path:
        """All its files as a gzipped tar in `folder`, made unless it is there."""
        path = folder / f"likewise-environment-{self.key}.archive"
        return kept(path, lambda stage: pack(dict(_files(self.distributions, PACKAGE)), stage))


def environment(requirements: Iterable[str], theirs: frozenset[str]) -> PackedEnvironment:
    """`requirements` (`likewise[openvino]`) and all that they need, but for `theirs`, which every worker has.

    Raises MissingExtra (something is not installed here), WrongUsage (something is installed from a working copy).
    """
    found = closure(requirements, theirs)
    own = package_digest(PACKAGE)
    records = {name: sha256_bytes(_record(name, each).encode()) for name, each in sorted(found.items())}
    key = sha256_json({"records": records, "package": own, **here()})[7:]
    return PackedEnvironment(found, key, own)


def closure(
    requirements: Iterable[str],
    theirs: frozenset[str] = frozenset(),
    *,
    unused: Mapping[str, frozenset[str]] = NOTHING,
    markers: Mapping[str, str] = NOTHING,
) -> dict[str, Distribution]:
    """The distributions that `requirements` need, by canonical name; MissingExtra where one is not installed.

    theirs: left out.  unused: by distribution, what it declares and nothing imports; left out unless another needs it.
    markers: of the environment that it is for (PEP 508), this one's by default.
    """
    utils, parse = need("packaging.utils", extra="mlflow"), need("packaging.requirements", extra="mlflow").Requirement
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(parse(text), "") for text in requirements]
    while waiting:
        requirement, wanted_by = waiting.pop()
        name = utils.canonicalize_name(requirement.name)
        fresh = {(name, extra) for extra in ("", *requirement.extras)} - seen
        if name in theirs or name in unused.get(wanted_by, ()) or not fresh:
            continue
        seen |= fresh
        found[name] = _installed(name, wanted_by)
        needed = [parse(text) for text in found[name].requires or ()]
        waiting += [(each, name) for each in needed if _applies(each.marker, markers, [extra for _, extra in fresh])]
    return found


def _installed(name: str, wanted_by: str) -> Distribution:
    try:
        return importlib.metadata.distribution(name)
    except PackageNotFoundError as error:
        why = f", which {wanted_by} needs" if wanted_by else ""
        raise MissingExtra(
            f"{name}{why} is not installed here, so it cannot be shipped in the version that the model was tried with",
            remedy=f"pip install {name}",
        ) from error


def _applies(marker: Any, markers: Mapping[str, str], extras: Iterable[str]) -> bool:
    return marker is None or any(marker.evaluate({**markers, "extra": extra}) for extra in extras)


def installed_from_folder(distribution: Distribution) -> bool:
    """Whether it is an editable installation, whose files no wheel has. Source: PEP 610."""
    told = json.loads(distribution.read_text("direct_url.json") or "{}")
    return bool(told.get("dir_info", {}).get("editable"))


def _files(found: dict[str, Distribution], package: Path) -> Iterator[tuple[str, Path]]:
    """Name in the archive and place on this disk of every file."""
    for name, distribution in found.items():
        own = name == OURS
        if own:
            yield from ((f"{OURS}/{p.relative_to(package).as_posix()}", p) for p in package_files(package))
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            metadata = file.parts[0].endswith(".dist-info")
            if ".." in file.parts or "__pycache__" in file.parts or (own and not metadata) or not path.is_file():
                continue
            yield file.as_posix(), path


def _record(name: str, distribution: Distribution) -> str:
    """The list of a distribution's files; of our own too, whose sources count by themselves."""
    record = distribution.read_text("RECORD")
    if record is None or (name != OURS and installed_from_folder(distribution)):
        raise WrongUsage(
            f"{name} is installed in a way that does not tell its files",
            remedy=f"install it as a wheel: pip install {name}",
        )
    return record


def kept(archive: Path, make: Callable[[Path], object]) -> Path:
    """`archive`, made unless it is there, under its name only when whole.

    make: writes the path that it is given. Archives beside it that nobody asked for in KEPT_S are dropped.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    if archive.exists():
        os.utime(archive)
    else:
        handle, stage = tempfile.mkstemp(prefix=f"{archive.name}.", dir=archive.parent)
        os.close(handle)
        try:
            make(Path(stage))
            Path(stage).replace(archive)
        finally:
            Path(stage).unlink(missing_ok=True)
    for old in archive.parent.glob("*.archive*"):
        with suppress(FileNotFoundError):  # another process drops it too
            if time.time() - old.stat().st_mtime > KEPT_S:
                old.unlink()
    return archive


def pack(files: dict[str, Path], archive: Path) -> None:
    """A gzipped tar of `files`; the same files give the same content."""
    with tarfile.open(archive, mode="w:gz", compresslevel=1) as tar:
        for name, path in sorted(files.items()):
            tar.add(path, name, recursive=False)
