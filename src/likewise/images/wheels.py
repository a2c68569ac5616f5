"""Wheels for the image's platform and Python: pinned to the installed versions, downloaded by pip, cached by hash."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from likewise.core.digests import PREFIX, sha256_file
from likewise.core.errors import BundleTampered, EngineUnavailable, InputNotFound, TargetUnavailable, WrongUsage
from likewise.core.extras import need
from likewise.core.uris import redacted
from likewise.images.oci import Platform
from likewise.images.store import Store
from likewise.shipping.environment import OURS, closure, installed_from_folder

OLDEST = 17  # minor version of glibc 2 for manylinux2014, the oldest accepted tag
_NO_MATCH = ("No matching distribution", "Could not find a version", "ResolutionImpossible")
UNUSED = {OURS: frozenset({"rich", "typer"})}
"""By distribution: declared dependencies that a service never imports, here those of the command line."""


def markers(platform: Platform, minor: int) -> dict[str, str]:
    """The environment for evaluating requirement markers: CPython 3.`minor` on `platform`. Source: PEP 508."""
    return {
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": platform.machine,
        "platform_release": "",
        "platform_version": "",
        "python_version": f"3.{minor}",
        "python_full_version": f"3.{minor}.0",
        "implementation_version": f"3.{minor}.0",
    }


def pins(
    requirements: Iterable[str], platform: Platform, minor: int, *, unused: Mapping[str, frozenset[str]]
) -> list[str]:
    """`name==version`, sorted, for the transitive dependencies of `requirements`, except Likewise itself.

    requirements: for example `likewise[openvino]`. unused: by distribution, declared dependencies that nothing
    imports; omitted unless something else needs them. The versions are the installed ones, because the bundle was
    verified with them.
    Raises MissingExtra (a requirement is not installed), WrongUsage (it is installed from a working copy).
    """
    distributions = closure(requirements, unused={**unused, **UNUSED}, markers=markers(platform, minor))
    for name, distribution in distributions.items():
        if name != OURS and installed_from_folder(distribution):
            raise WrongUsage(
                f"{name} is installed from a working copy", remedy=f"install it from a wheel: pip install {name}"
            )
    return sorted(f"{name}=={each.version}" for name, each in distributions.items() if name != OURS)


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel by file name and sha256 (64 hex digits)."""

    file: str
    sha256: str

    @property
    def pin(self) -> str:
        """The wheel as a line of a requirements file with hashes."""
        name, version = need("packaging.utils", extra="images").parse_wheel_filename(self.file)[:2]
        return f"{name}=={version} --hash=sha256:{self.sha256}"


class Wheels:
    """The cache of wheels for one platform and Python, addressed by hash."""

    def __init__(self, store: Store, platform: Platform, minor: int, glibc: tuple[int, int]) -> None:
        self.store, self.platform, self._minor, self._glibc = store, platform, minor, glibc
        self.folder = store.folder / "wheels"

    def locked(self, pins: Sequence[str], links: Iterable[Path] = (), lock: Path | None = None) -> list[Wheel]:
        """One wheel per pin; resolved once and reused from then on.

        links: folders of wheels that no index has. lock: a requirements file with hashes that replaces `pins`.
        Raises EngineUnavailable (no such wheel for the platform), TargetUnavailable (pip failed), InputNotFound.
        """
        lines = list(pins) if lock is None else _read_lock(lock)
        folders = sorted(str(folder.resolve()) for folder in links)
        offered = sorted({f"{path.name} {sha256_file(path)}" for each in folders for path in Path(each).glob("*.whl")})
        key = {"lines": lines, "tags": self._tags(), "python": self._minor, "links": offered}
        entries = self.store.recall("lock", key)
        wheels = [Wheel(**entry) for entry in entries or ()]
        if entries is None or not all(self.path(wheel).is_file() for wheel in wheels):
            wheels = self._fetch(lines, folders, hashed=lock is not None)
            self.store.remember("lock", key, [asdict(wheel) for wheel in wheels])
        return wheels

    def path(self, wheel: Wheel) -> Path:
        """The wheel's path in the cache."""
        return self.folder / wheel.sha256 / wheel.file

    def checked(self, wheel: Wheel) -> Path:
        """The wheel's path after checking its hash; raises BundleTampered if it does not match."""
        path = self.path(wheel)
        if sha256_file(path) != PREFIX + wheel.sha256:
            raise BundleTampered(f"{path} was modified after the download", remedy="delete it and build again")
        return path

    def _fetch(self, lines: Sequence[str], links: Sequence[str], *, hashed: bool) -> list[Wheel]:
        self.folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            requirements = Path(scratch, "requirements.txt")
            requirements.write_text("\n".join(lines) + "\n")
            downloads = Path(scratch, "wheels")
            downloads.mkdir()
            if lines:
                self._download(requirements, downloads, links, hashed=hashed)
            return sorted((self._add(path) for path in downloads.iterdir()), key=lambda wheel: wheel.file.lower())

    def _download(self, requirements: Path, folder: Path, links: Sequence[str], *, hashed: bool) -> None:
        need("pip", extra="images")
        # pip reads indexes, mirrors and passwords from the user's own configuration
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
        command += ["--disable-pip-version-check", "--progress-bar=off"]
        command += [f"--dest={folder}", f"--requirement={requirements}"]
        command += ["--implementation=cp", f"--python-version=3.{self._minor}"]
        command += [f"--platform={tag}" for tag in self._tags()]
        command += [f"--find-links={link}" for link in links]
        command += ["--require-hashes"] if hashed else []
        completed = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"}
        )
        if completed.returncode != 0:
            raise self._pip_failure(completed.stderr)

    def _pip_failure(self, stderr: str) -> EngineUnavailable | TargetUnavailable:
        errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
        message = (errors[-1] if errors else redacted(stderr).strip()[-300:]) or "no error message"
        if any(word in stderr for word in _NO_MATCH) and "Connection" not in stderr:
            return EngineUnavailable(
                f"pip found no wheel for {self.platform} and Python 3.{self._minor}: {message}",
                remedy="pass a folder that has it with --wheels DIR, or use another --platform, --base or --engine",
            )
        return TargetUnavailable(f"pip cannot download the wheels: {message}", remedy="check network and pip settings")

    def _add(self, path: Path) -> Wheel:
        wheel = Wheel(path.name, sha256_file(path).removeprefix(PREFIX))
        target = self.path(wheel)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
        return wheel

    def _tags(self) -> list[str]:
        """Platform tags of wheels that run on the base's glibc, newest first. Source: PEP 600, PEP 599."""
        newest = self._glibc[1] if self._glibc[0] == 2 else OLDEST
        return [f"manylinux_2_{n}_{self.platform.machine}" for n in range(newest, OLDEST - 1, -1)] + [
            f"manylinux2014_{self.platform.machine}",
            f"linux_{self.platform.machine}",
        ]


def lock_text(wheels: Iterable[Wheel]) -> str:
    """The wheels as a requirements file with hashes, the format that `--lock` reads."""
    return "".join(f"{wheel.pin}\n" for wheel in wheels)


def _read_lock(lock: Path) -> list[str]:
    try:
        return [line for line in lock.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise InputNotFound(f"the lock {lock} cannot be read: {error.strerror}", remedy="check the path") from error
