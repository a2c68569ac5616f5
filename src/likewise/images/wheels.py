"""Wheels for the image's platform and Python: pinned to what was tried here, fetched by pip, known by hash, kept."""

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
from likewise.images.oci import Platform
from likewise.images.store import Store
from likewise.shipping.environment import OURS, closure, installed_from_folder

OLDEST = 17  # minor version of the glibc that the first of these tags stands for
_NOTHING = ("No matching distribution", "Could not find a version", "ResolutionImpossible")
UNUSED = {OURS: frozenset({"rich", "typer"})}
"""By distribution, what it declares and a service never imports: here the command line's."""


def markers(platform: Platform, minor: int) -> dict[str, str]:
    """What requirements are asked against: CPython 3.`minor` on `platform`. Source: PEP 508."""
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
    """`name==version`, sorted, of all that `requirements` (`likewise[openvino]`) need, but for us.

    unused: by distribution, what it declares and nothing imports; left out where nothing else needs it.
    Versions are those that are installed here, as the bundle was proved with them.
    Raises MissingExtra (something is not installed here), WrongUsage (it is installed from a working copy).
    """
    found = closure(requirements, unused={**unused, **UNUSED}, markers=markers(platform, minor))
    for name, each in found.items():
        if name != OURS and installed_from_folder(each):
            raise WrongUsage(
                f"{name} is installed from a working copy", remedy=f"build a wheel of it: pip install {name}"
            )
    return sorted(f"{name}=={each.version}" for name, each in found.items() if name != OURS)


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file; sha256 as 64 hex digits."""

    file: str
    sha256: str

    @property
    def pin(self) -> str:
        """As a line of a requirements file with hashes."""
        name, version = need("packaging.utils", extra="images").parse_wheel_filename(self.file)[:2]
        return f"{name}=={version} --hash=sha256:{self.sha256}"


class Wheels:
    """The wheels that lie in the cache, by hash."""

    def __init__(self, store: Store, platform: Platform, minor: int, glibc: tuple[int, int]) -> None:
        self.store, self.platform, self._minor, self._glibc = store, platform, minor, glibc
        self.folder = store.folder / "wheels"

    def locked(self, pins: Sequence[str], links: Iterable[Path] = (), lock: Path | None = None) -> list[Wheel]:
        """One wheel a pin; asked for once, and the same ones ever after.

        links: folders of wheels that no index has. lock: a requirements file with hashes that stands for `pins`.
        Raises EngineUnavailable (no such wheel for the platform), TargetUnavailable (no index answers), InputNotFound.
        """
        lines = list(pins) if lock is None else _lines(lock)
        folders = sorted(str(folder.resolve()) for folder in links)
        offered = sorted({f"{path.name} {sha256_file(path)}" for each in folders for path in Path(each).glob("*.whl")})
        key = {"lines": lines, "tags": self._tags(), "python": self._minor, "links": offered}
        known = self.store.recall("lock", key)
        wheels = [Wheel(**entry) for entry in known or ()]
        if known is None or not all(self.path(wheel).is_file() for wheel in wheels):
            wheels = self._fetched(lines, folders, hashed=lock is not None)
            self.store.remember("lock", key, [asdict(wheel) for wheel in wheels])
        return wheels

    def path(self, wheel: Wheel) -> Path:
        """Where it lies."""
        return self.folder / wheel.sha256 / wheel.file

    def checked(self, wheel: Wheel) -> Path:
        """Where it lies, whole; BundleTampered where it has other bytes than its name says."""
        path = self.path(wheel)
        if sha256_file(path) != PREFIX + wheel.sha256:
            raise BundleTampered(f"{path} was changed after it was fetched", remedy="delete it, and build again")
        return path

    def _fetched(self, lines: Sequence[str], links: Sequence[str], *, hashed: bool) -> list[Wheel]:
        self.folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            asked = Path(scratch, "requirements.txt")
            asked.write_text("\n".join(lines) + "\n")
            into = Path(scratch, "wheels")
            into.mkdir()
            if lines:
                self._download(asked, into, links, hashed=hashed)
            return sorted((self._keep(path) for path in into.iterdir()), key=lambda wheel: wheel.file.lower())

    def _download(self, asked: Path, into: Path, links: Sequence[str], *, hashed: bool) -> None:
        need("pip", extra="images")
        # indexes, mirrors and their passwords are pip's own business: its configuration holds for us too
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
        command += ["--disable-pip-version-check", "--progress-bar=off", f"--dest={into}", f"--requirement={asked}"]
        command += ["--implementation=cp", f"--python-version=3.{self._minor}"]
        command += [f"--platform={tag}" for tag in self._tags()]
        command += [f"--find-links={folder}" for folder in links]
        command += ["--require-hashes"] if hashed else []
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"}
        )
        if done.returncode != 0:
            raise self._why(done.stderr)

    def _why(self, said: str) -> EngineUnavailable | TargetUnavailable:
        errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
        told = (errors[-1] if errors else said.strip()[-300:]) or "it says nothing"
        if any(word in said for word in _NOTHING) and "Connection" not in said:
            return EngineUnavailable(
                f"pip finds no wheel for {self.platform} and Python 3.{self._minor}: {told}",
                remedy="give a folder that has it: --wheels DIR; or choose another --platform, --base or --engine",
            )
        return TargetUnavailable(f"pip cannot fetch the wheels: {told}", remedy="check the network and pip's settings")

    def _keep(self, path: Path) -> Wheel:
        wheel = Wheel(path.name, sha256_file(path).removeprefix(PREFIX))
        place = self.path(wheel)
        place.parent.mkdir(exist_ok=True)
        path.replace(place)
        return wheel

    def _tags(self) -> list[str]:
        """Of wheels that run on the base's C library, the newest first. Source: PEP 600, PEP 599."""
        newest = self._glibc[1] if self._glibc[0] == 2 else OLDEST
        return [f"manylinux_2_{n}_{self.platform.machine}" for n in range(newest, OLDEST - 1, -1)] + [
            f"manylinux2014_{self.platform.machine}",
            f"linux_{self.platform.machine}",
        ]


def lock_text(wheels: Iterable[Wheel]) -> str:
    """A requirements file with hashes, as `--lock` takes it."""
    return "".join(f"{wheel.pin}\n" for wheel in wheels)


def _lines(lock: Path) -> list[str]:
    try:
        return [line for line in lock.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise InputNotFound(f"the lock {lock} cannot be read: {error.strerror}", remedy="check the path") from error
