"""The Python environment that an engine needs on workers: locally installed distributions, packed as one archive."""

from __future__ import annotations

import importlib.metadata
import importlib.util
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
from likewise.core.extras import direct_url, need
from likewise.core.private_files import private_folder
from likewise.core.unpack import local_runtime, package_digest, package_files

OURS = "likewise"  # the name of Likewise's own distribution
EMPTY: Mapping[str, Any] = MappingProxyType({})
_INSTALLERS = frozenset({"pip", "wheel"})
RETENTION_S = 7 * 24 * 3600.0
PACKAGE = Path(__file__).parents[1]  # the folder of the installed `likewise` package


@dataclass(frozen=True, slots=True)
class PackedEnvironment:
    """A set of installed distributions, valid for the Python version and platform that `local_runtime` returns.

    distributions: by canonical name. key: digest of Likewise's sources and of every other distribution's RECORD, which
    contains the hash of each of its files. package: digest of Likewise's sources.
    """

    distributions: dict[str, Distribution]
    key: str
    package: str

    @property
    def versions(self) -> dict[str, str]:
        """The version of each distribution except Likewise, by canonical name."""
        return {name: each.version for name, each in self.distributions.items() if name != OURS}

    def archive(self, folder: Path) -> Path:
        """The path of a gzipped tar of all files in `folder`, created unless it exists."""
        path = folder / f"likewise-environment-{self.key}.archive"
        return cached_archive(path, lambda stage: pack(dict(distribution_files(self.distributions, PACKAGE)), stage))


def environment(requirements: Iterable[str], preinstalled: frozenset[str]) -> PackedEnvironment:
    """`requirements` (`likewise[openvino]`) and their dependencies, except `preinstalled`, which every worker has.

    Raises MissingExtra (a distribution is not installed here), WrongUsage (one is installed in editable mode).
    """
    return _packed(closure(requirements, preinstalled))


def whole_environment(packages: Path, preinstalled: frozenset[str]) -> PackedEnvironment:
    """All distributions in the folder `packages`, except `preinstalled`, which every worker has."""
    canonical = need("packaging.utils", extra="mlflow").canonicalize_name
    found = {canonical(each.name): each for each in importlib.metadata.distributions(path=[str(packages)])}
    return _packed({name: each for name, each in found.items() if name not in preinstalled | _INSTALLERS})


def _packed(distributions: dict[str, Distribution]) -> PackedEnvironment:
    own = package_digest(PACKAGE)
    records = {name: sha256_bytes(_record(name, each).encode()) for name, each in sorted(distributions.items())}
    key = sha256_json({"records": records, "package": own, **local_runtime()})[7:]
    return PackedEnvironment(distributions, key, own)


def closure(
    requirements: Iterable[str],
    preinstalled: frozenset[str] = frozenset(),
    *,
    unused: Mapping[str, frozenset[str]] = EMPTY,
    markers: Mapping[str, str] = EMPTY,
) -> dict[str, Distribution]:
    """The installed distributions that `requirements` need, by canonical name; MissingExtra if one is not installed.

    preinstalled: distributions to leave out.  unused: by distribution, declared dependencies that nothing imports; left
    out unless another distribution needs them.  markers: PEP 508 markers of the target environment, the local one by
    default.
    """
    utils, parse = need("packaging.utils", extra="mlflow"), need("packaging.requirements", extra="mlflow").Requirement
    distributions: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    pending = [(each, "") for each in map(parse, requirements) if _applies(each.marker, markers, [""])]
    while pending:
        requirement, required_by = pending.pop()
        name = utils.canonicalize_name(requirement.name)
        fresh = {(name, extra) for extra in ("", *requirement.extras)} - seen
        if name in preinstalled or name in unused.get(required_by, ()) or not fresh:
            continue
        seen |= fresh
        distributions[name] = _installed(name, required_by)
        needed = [parse(text) for text in distributions[name].requires or ()]
        pending += [(each, name) for each in needed if _applies(each.marker, markers, [extra for _, extra in fresh])]
    return distributions


def _installed(name: str, required_by: str) -> Distribution:
    try:
        return importlib.metadata.distribution(name)
    except PackageNotFoundError as error:
        reason = f", which {required_by} needs" if required_by else ""
        raise MissingExtra(
            f"{name}{reason} is not installed here, so the version that the model was tested with cannot be shipped",
            remedy=f"pip install {name}; or add --env to run in an environment with the model's versions",
        ) from error


def _applies(marker: Any, markers: Mapping[str, str], extras: Iterable[str]) -> bool:
    return marker is None or any(marker.evaluate({**markers, "extra": extra}) for extra in extras)


def installed_from_folder(distribution: Distribution) -> bool:
    """Whether this is an editable installation, whose files are not from a wheel. Source: PEP 610."""
    return bool(direct_url(distribution).get("dir_info", {}).get("editable"))


def origin(distribution: Distribution) -> str:
    """The URL that a distribution was installed from; empty if from a package index. Source: PEP 610."""
    if (distribution.read_text("INSTALLER") or "").strip() == "conda":
        return ""  # conda's packages name the folder on the machine where they were built
    return str(direct_url(distribution).get("url", ""))


def distribution_files(distributions: dict[str, Distribution], package: Path) -> Iterator[tuple[str, Path]]:
    """The name in the archive and the path on this disk of every file of the distributions."""
    for name, distribution in distributions.items():
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
    """A distribution's RECORD; WrongUsage if it has none or is editable (except Likewise, hashed by its sources)."""
    record = distribution.read_text("RECORD")
    if record is None or (name != OURS and installed_from_folder(distribution)):
        raise WrongUsage(
            f"{name} is installed without a list of its files (RECORD), or in editable mode",
            remedy=f"install {name} again from a wheel, without --editable",
        )
    return record


def cached_archive(archive: Path, write: Callable[[Path], object]) -> Path:
    """`archive`, created unless it exists, under its final name only when complete.

    write: writes the file at the path that it receives.  Archives in the folder that were not used for RETENTION_S are
    deleted.
    """
    private_folder(archive.parent)
    if archive.exists():
        os.utime(archive)
    else:
        handle, stage = tempfile.mkstemp(prefix=f"{archive.name}.", dir=archive.parent)
        os.close(handle)
        try:
            write(Path(stage))
            Path(stage).replace(archive)
        finally:
            Path(stage).unlink(missing_ok=True)
    for old in archive.parent.glob("*.archive*"):
        with suppress(FileNotFoundError):  # another process may delete it at the same time
            if time.time() - old.stat().st_mtime > RETENTION_S:
                old.unlink()
    return archive


def pack(files: dict[str, Path], archive: Path) -> None:
    """Write a gzipped tar of `files`, a mapping of names in the archive to paths; equal files give equal content."""
    with tarfile.open(archive, mode="w:gz", compresslevel=1) as tar:
        for name, path in sorted(files.items()):
            tar.add(path, name, recursive=False)
