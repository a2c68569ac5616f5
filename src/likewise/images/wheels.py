"""Wheels for the image's platform and Python: pinned to the installed versions, downloaded by pip, cached by hash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from likewise.core.digests import PREFIX, sha256_file
from likewise.core.errors import BundleTampered, EngineUnavailable, TargetUnavailable, WrongUsage
from likewise.core.extras import need
from likewise.core.processes import bound
from likewise.core.scratch import scratch_folder
from likewise.core.uris import redacted
from likewise.images.lock import read_lock
from likewise.images.oci import Platform
from likewise.images.store import Store
from likewise.images.wheel_names import Wheel, identity, identity_of, platform_tags, rank
from likewise.shipping.environment import OURS, closure, origin

_NO_MATCH = ("No matching distribution", "Could not find a version", "ResolutionImpossible")
UNUSED = {OURS: frozenset({"fickling", "rich", "typer"})}
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
    verified with them. Raises MissingExtra (a requirement is not installed).
    """
    distributions = closure(requirements, unused={**unused, **UNUSED}, markers=markers(platform, minor))
    return sorted(f"{name}=={each.version}" for name, each in distributions.items() if name != OURS)


class Wheels:
    """The cache of wheels for one platform and Python, addressed by hash."""

    def __init__(self, store: Store, platform: Platform, minor: int, glibc: tuple[int, int]) -> None:
        self.store, self.platform, self._minor, self._glibc = store, platform, minor, glibc
        self._tags = platform_tags(platform, glibc)
        self.folder = store.folder / "wheels"

    def locked(
        self,
        pins: Sequence[str],
        links: Iterable[Path] = (),
        lock: Path | None = None,
        bundled: Mapping[Wheel, Path] | None = None,
    ) -> list[Wheel]:
        """One wheel per pin, sorted by file name: from `links`, else from `bundled`, else from pip.

        links: folders of wheels that no index has. lock: a requirements file with hashes that replaces `pins`.
        bundled: wheels of the bundle and their paths, which pip never sees.
        Raises EngineUnavailable (no such wheel for the platform), TargetUnavailable (pip failed), InputNotFound,
        WrongUsage (as `read_lock`; a package is not from an index, and no wheel of it is given), BundleTampered.
        """
        lines = list(pins) if lock is None else read_lock(lock, markers(self.platform, self._minor))
        folders = sorted(str(folder.resolve()) for folder in links)
        chosen = {line: wheel for line in lines if (wheel := self._given(line, folders, bundled or {}))}
        rest = [line for line in lines if line not in chosen]
        if lock is None:
            _require_index(rest)
        found = self._resolved(rest, folders, hashed=lock is not None) if rest else []
        return sorted([*chosen.values(), *found], key=lambda wheel: wheel.file.lower())

    def _given(self, line: str, folders: Sequence[str], bundled: Mapping[Wheel, Path]) -> Wheel | None:
        """The wheel of exactly this name and version in the user's folders, else in the bundle."""
        files = [path for folder in folders for path in sorted(Path(folder).glob("*.whl"))]
        suitable = [path for path in files if _is_for(line, path.name) and self._rank(path.name)]
        if "--hash" in line:
            suitable = [path for path in suitable if sha256_file(path) in line]
        if suitable:
            return self._keep(min(suitable, key=lambda path: self._rank(path.name)))
        for wheel, path in bundled.items():
            if _is_for(line, wheel.file) and ("--hash" not in line or wheel.sha256 in line):
                return self._keep_bundled(wheel, path)
        return None

    def _keep_bundled(self, wheel: Wheel, path: Path) -> Wheel:
        if not self._rank(wheel.file):
            raise EngineUnavailable(
                f"the bundle's wheel {wheel.file} does not suit {self.platform}, Python 3.{self._minor} and glibc "
                f"{'.'.join(map(str, self._glibc))}",
                remedy="pass a folder that has a suitable one with --wheels DIR, or use another --platform or --base",
            )
        if self._keep(path) != wheel:
            raise BundleTampered(f"{path} was modified after it was verified", remedy="copy the bundle again")
        return wheel

    def _rank(self, file: str) -> tuple[Any, ...]:
        return rank(file, self._minor, self._tags)

    def _resolved(self, lines: Sequence[str], folders: Sequence[str], *, hashed: bool) -> list[Wheel]:
        """The wheels that pip chose for `lines`; once for all builds."""
        offered = sorted({f"{path.name} {sha256_file(path)}" for each in folders for path in Path(each).glob("*.whl")})
        key = {"lines": lines, "tags": self._tags, "python": self._minor, "links": offered}
        entries = self.store.recall("lock", key)
        wheels = [Wheel(**entry) for entry in entries or ()]
        if entries is None or not all(self.path(wheel).is_file() for wheel in wheels):
            wheels = self._fetch(lines, folders, hashed=hashed)
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
        with self._scratch() as scratch:
            requirements = Path(scratch, "requirements.txt")
            requirements.write_text("\n".join(lines) + "\n")
            downloads = Path(scratch, "wheels")
            downloads.mkdir()
            self._download(requirements, downloads, links, hashed=hashed)
            return sorted((self._add(path) for path in downloads.iterdir()), key=lambda wheel: wheel.file.lower())

    def _download(self, requirements: Path, folder: Path, links: Sequence[str], *, hashed: bool) -> None:
        need("pip", extra="images")
        # pip reads indexes, mirrors and passwords from the user's own configuration
        # -P: a folder `pip` in the current folder, which may be a model's, is not run
        command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
        command += ["--quiet", "--disable-pip-version-check", "--progress-bar=off"]
        command += [f"--dest={folder}", f"--requirement={requirements}"]
        command += ["--implementation=cp", f"--python-version=3.{self._minor}"]
        command += [f"--platform={tag}" for tag in self._tags]
        command += [f"--find-links={link}" for link in links]
        command += ["--require-hashes"] if hashed else []
        completed = subprocess.run(
            bound(command), capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"}
        )
        if completed.returncode != 0:
            raise self._pip_failure(completed.stderr)

    def _pip_failure(self, stderr: str) -> EngineUnavailable | TargetUnavailable:
        errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
        if errors and errors[-1] == "Exception:":  # a failure of pip itself, whose last line has the reason
            errors = redacted(stderr).strip().splitlines()[-1:]
        message = (errors[-1] if errors else redacted(stderr).strip()[-300:]) or "no error message"
        if any(word in stderr for word in _NO_MATCH) and "Connection" not in stderr:
            return EngineUnavailable(
                f"pip found no wheel for {self.platform} and Python 3.{self._minor}: {message}",
                remedy="pass a folder that has it with --wheels DIR, or use another --platform, --base or --engine",
            )
        return TargetUnavailable(f"pip cannot download the wheels: {message}", remedy="check network and pip settings")

    def _keep(self, path: Path) -> Wheel:
        """Copy a wheel into the cache; the copy is hashed, so that later changes of `path` do not matter."""
        with self._scratch() as scratch:
            return self._add(Path(shutil.copyfile(path, Path(scratch, path.name))))

    def _scratch(self) -> AbstractContextManager[Path]:
        self.folder.mkdir(exist_ok=True)
        return scratch_folder("likewise-new-", self.folder)

    def _add(self, path: Path) -> Wheel:
        wheel = Wheel(path.name, sha256_file(path).removeprefix(PREFIX))
        target = self.path(wheel)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
        return wheel


def _is_for(pin: str, file: str) -> bool:
    return identity_of(file) == identity(pin)


def _require_index(pins: Iterable[str]) -> None:
    """Raise WrongUsage for a package that was not installed from an index: its name may be another's there."""
    for pin in pins:
        with suppress(PackageNotFoundError):
            if source := origin(distribution(pin.partition("==")[0])):
                raise WrongUsage(
                    f"{pin} was installed from {redacted(source)}; a package index may have another package of that "
                    "name, and no suitable wheel of this version is given",
                    remedy="build it, for example pip wheel --no-deps -w DIR SOURCE, and pass --wheels DIR",
                )
