"""An environment with the versions that a model was logged with, and Likewise: created once, and then used by commands.

It is a virtual environment in the cache, filled by uv, or by pip where uv is not installed; both read their indexes,
mirrors and passwords from the user's own settings.  Its name is a digest of all that goes into it.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likewise.bundles.cache import cache_folder
from likewise.bundles.format import LoggedEnvironment
from likewise.core.digests import sha256_file, sha256_json
from likewise.core.errors import EnvironmentFailed, MissingExtra, OutputRefused
from likewise.core.extras import need
from likewise.core.processes import OWN, bound
from likewise.core.unpack import exclusive, folder_size, local_runtime, package_digest
from likewise.core.uris import redacted
from likewise.engine.requirements import plain_requirement, plain_requirements, without_comment
from likewise.engine.versions import LIBRARIES, alike
from likewise.shipping.environment import OURS, PACKAGE, distribution_files

FOLDER = "environments"
UV = "uv"
LEAST_MLFLOW = "2.9.2"  # the oldest MLflow that the engine runs with; tests/process/test_mlflow_versions.py
PYTHONS = range(11, 14)  # minor versions of Python 3 that Likewise runs on
RELAXED = frozenset({"numpy", "pyarrow"})  # Likewise's own lower bounds of these hold only for its fast engines
KNOWN = frozenset({"numpy", "pandas", "scipy", "joblib", "threadpoolctl", "skops", "setuptools"})
REASON = 1200  # characters of an installer's message
_MINOR = "'%d.%d' % sys.version_info[:2]"
SETTINGS = re.compile(
    r"(-i|-f|--index-url|--extra-index-url|--no-index|--find-links|--trusted-host|--pre|--prefer-binary|--only-binary|"
    r"--no-binary|--use-feature)(?=[\s=]|$)"
)
"""Options of requirements files that say where packages come from, which the user decides, not the model."""

OnProgress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What goes into an environment.

    python: the interpreter that it is made with.  minor: its minor version.  requirements: lines for the installer.
    wheels: files that it may use besides those of the index.  builds: whether packages may be built from source, which
    runs their code.
    """

    python: str
    minor: int
    requirements: tuple[str, ...]
    wheels: tuple[Path, ...] = ()
    builds: bool = False

    @property
    def key(self) -> str:
        """A digest of everything that decides the content, including Likewise's own sources."""
        content = {
            "python": f"3.{self.minor}",
            "platform": local_runtime()["platform"],
            "requirements": self.requirements,
            "wheels": sorted(f"{path.name} {sha256_file(path)}" for path in self.wheels),
            "builds": self.builds,
            "likewise": package_digest(PACKAGE),
        }
        return sha256_json(content).removeprefix("sha256:")[:32]


def wanted(
    logged: LoggedEnvironment,
    *,
    trusted: bool,
    extras: Collection[str] = (),
    wheels: Iterable[Path] = (),
    other_python: bool = False,
    report: OnProgress,
) -> Wanted:
    """What the environment of a model needs.

    trusted: whether the model's code may run; otherwise only the libraries of MLflow's flavors are installed, and only
    from wheels, because a package may run code when it is installed and when Python starts.  extras: of Likewise, that
    the command needs.  wheels: of the bundle, used only if it is trusted.  other_python: whether this Python may take
    the place of one that is not installed.  report: called with a line for each thing that is not as logged.
    Raises WrongUsage (a requirement is a URL or a path), EnvironmentFailed (no such Python), MissingExtra.
    """
    python, minor = _interpreter(logged.python, other_python, report)
    lines = plain_requirements(_without_settings(logged.requirements, report))
    parsed = [each for each in map(plain_requirement, lines) if _applies(each, minor)]
    if not trusted:
        parsed = list(_known(parsed, report))
    names = {need("packaging.utils", extra="mlflow").canonicalize_name(each.name) for each in parsed}
    requirements = [*(_mlflow(each, report) for each in parsed), *_own(names, extras)]
    if not names.intersection(alike("mlflow")):
        requirements.append(f"mlflow>={LEAST_MLFLOW}")
    if "setuptools" not in names:
        requirements.append("setuptools<81")  # for MLflow 2, which imports its pkg_resources
    return Wanted(python, minor, tuple(sorted(requirements)), tuple(wheels) if trusted else (), builds=trusted)


def environment_python(wanted: Wanted, report: OnProgress, uv: str | None = UV) -> Path:
    """The Python of the environment, created unless it exists; two commands at once create one.

    uv: its path, None for pip; by default uv if it is installed.
    Raises EnvironmentFailed (with the installer's reason), OutputRefused (the cache cannot be written).
    """
    folder = cache_folder(FOLDER) / wanted.key
    try:
        with _only_one(folder, report):
            if not (folder / OWN).is_file():
                _create(folder, wanted, report, find_uv() if uv == UV else uv)
    except OSError as error:
        raise OutputRefused(
            f"the environment {folder} cannot be created: {error.strerror or error}",
            remedy="free some space, or set LIKEWISE_CACHE_HOME to another private folder",
        ) from error
    return folder / "bin" / "python"


def packages_of(python: Path) -> Path:
    """The folder with the packages of an environment of `environment_python`."""
    return next((python.parents[1] / "lib").glob("python3.*")) / "site-packages"


# --- what to install --------------------------------------------------------------------------------------------------


def _interpreter(logged: str | None, other: bool, report: OnProgress) -> tuple[str, int]:
    """An interpreter of the logged minor version, and that version."""
    mine = sys.version_info[:2]
    match = re.match(r"3\.(\d+)", logged or "") if logged else None
    wanted = (3, int(match[1])) if match else mine
    if wanted == mine:
        return sys.executable, mine[1]
    name = f"{wanted[0]}.{wanted[1]}"
    if wanted[1] in PYTHONS and (found := _found(name)) is not None:
        return found, wanted[1]
    here = f"{mine[0]}.{mine[1]}"
    if other:
        report(f"the model was logged with Python {logged}; its environment has Python {here}")
        return sys.executable, mine[1]
    why, remedy = f"Likewise needs Python 3.{PYTHONS[0]} to 3.{PYTHONS[-1]}", ""
    if wanted[1] in PYTHONS:
        why = "no such Python is found here"
        remedy = f"install it, so that python{name} is on the PATH, or run: uv python install {name}; or "
    raise EnvironmentFailed(
        f"the model was logged with Python {logged}, and {why}",
        remedy=f"{remedy}add --allow-versions to --env, to use Python {here} with the packages that were logged",
    )


def _found(version: str) -> str | None:
    """The path of a Python `3.N`: from uv, which also knows those that it installed itself, else from the PATH."""
    commands = [[uv, "python", "find", "--no-project", "--no-python-downloads", version]] if (uv := find_uv()) else []
    if (on_path := shutil.which(f"python{version}")) is not None:
        commands.append([on_path, "-I", "-c", f"import sys; print(sys.executable * ('{version}' == {_MINOR}))"])
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = done.stdout.strip()
        if done.returncode == 0 and Path(found).is_file():
            return found
    return None


def _without_settings(lines: Iterable[str], report: OnProgress) -> Iterator[str]:
    for line in map(without_comment, lines):
        if match := SETTINGS.match(line):
            report(
                f"the model's line {match[1]} is not used: a model does not decide where packages come from; if some "
                "are not found, set PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS or pip.conf (or uv's UV_INDEX, "
                "UV_FIND_LINKS or uv.toml)"
            )
        else:
            yield line


def _applies(requirement: Any, minor: int) -> bool:
    """Whether its marker, which is then removed, holds in the new environment."""
    marker, requirement.marker = requirement.marker, None
    version = {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0", "extra": ""}
    return marker is None or bool(marker.evaluate(version))


def _known(requirements: Iterable[Any], report: OnProgress) -> Iterator[Any]:
    """The requirements that need no trust; the others are reported."""
    known = {name for library in (*LIBRARIES.values(), "mlflow") for name in alike(library)} | KNOWN
    canonical = need("packaging.utils", extra="mlflow").canonicalize_name
    omitted = []
    for requirement in requirements:
        if canonical(requirement.name) in known:
            yield requirement
        else:
            omitted.append(requirement.name)
    if omitted:
        report(f"not installed, because the model is not trusted: {', '.join(omitted)}; to install them, add --trust")


def _mlflow(requirement: Any, report: OnProgress) -> str:
    """The line of a requirement; MLflow's in a version that the engine runs with."""
    name = need("packaging.utils", extra="mlflow").canonicalize_name(requirement.name)
    if name not in alike("mlflow"):
        return str(requirement)
    version = need("packaging.version", extra="mlflow").Version
    exact = re.fullmatch(r"===?([^*,]+)", str(requirement.specifier))
    if exact and version(exact[1]) < version(LEAST_MLFLOW):
        report(f"the model was logged with MLflow {exact[1]}; its environment has {LEAST_MLFLOW}, the oldest possible")
        return f"{name}=={LEAST_MLFLOW}"
    return str(requirement) if exact else f"{requirement}{',' if requirement.specifier else ''}>={LEAST_MLFLOW}"


def _own(logged: Collection[str], extras: Collection[str]) -> Iterator[str]:
    """The requirements of Likewise and of its `extras`, unless the model's own have them.

    Those of extras have the versions that are installed here, because a cluster has the same.
    """
    canonical = need("packaging.utils", extra="mlflow").canonicalize_name
    parse = need("packaging.requirements", extra="mlflow").Requirement
    own = ["", "batch", "mlflow"]  # the last for its tools; MLflow itself is as logged
    for text in importlib.metadata.distribution(OURS).requires or ():
        requirement = parse(text)
        marker, name = requirement.marker, canonical(requirement.name)
        if name in logged or name == OURS or name in alike("mlflow"):
            continue
        if marker is None or any(marker.evaluate({"extra": each}) for each in own):
            yield name if name in RELAXED else f"{requirement.name}{requirement.specifier}"
        elif any(marker.evaluate({"extra": each}) for each in extras):
            yield f"{_with_extras(requirement)}=={_installed(requirement.name)}"


def _with_extras(requirement: Any) -> str:
    """`ray[serve]`: the requirement without its version."""
    return str(requirement.name) + (f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else "")


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtra(f"the command needs {name}, which is not installed", remedy=f"pip install {name}") from error


# --- how it is created ------------------------------------------------------------------------------------------------


@contextmanager
def _only_one(folder: Path, report: OnProgress) -> Iterator[None]:
    """Hold the lock of `folder`, which the kernel releases if this process is killed."""
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(folder, fcntl.LOCK_NB))
        except BlockingIOError:
            report("another command is creating the environment; waiting for it")
            stack.enter_context(exclusive(folder))
        yield


def _create(folder: Path, wanted: Wanted, report: OnProgress, uv: str | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of a command that was killed
    try:
        tool = "uv" if uv else "pip"
        report(f"creating an environment with Python 3.{wanted.minor} and the logged versions, by {tool}")
        if uv:
            run_installer(
                [uv, "venv", "--quiet", "--no-project", "--python", wanted.python, str(folder)], folder.parent
            )
        else:
            run_installer([wanted.python, "-I", "-m", "venv", str(folder)], folder.parent)
        _install(folder, wanted, uv)
        _copy_likewise(packages_of(folder / "bin" / "python"))
        mark = {"requirements": wanted.requirements, "creator": sys.executable}
        (folder / OWN).write_text(json.dumps(mark, indent=2) + "\n")
        report(f"created {folder}, {folder_size(folder) / 1e6:,.0f} MB")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _install(folder: Path, wanted: Wanted, uv: str | None) -> None:
    """Install the requirements: from the bundle's wheels alone if these are enough, else also from the index."""
    python, lines = str(folder / "bin" / "python"), folder / "requirements.txt"
    lines.write_text("\n".join(wanted.requirements) + "\n")
    if uv:
        command = [uv, "pip", "install", "--quiet", "--python", python]
    else:
        # -I: neither the current folder, which may be a model's, nor the user's other packages are imported
        command = [python, "-I", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
        command += ["--progress-bar=off"]
    command += [f"--requirement={lines}", *([] if wanted.builds else ["--only-binary=:all:"])]
    if not wanted.wheels:
        return run_installer(command, folder)
    links = folder / "wheels"
    links.mkdir()
    for path in wanted.wheels:
        shutil.copyfile(path, links / path.name)
    command.append(f"--find-links={links}")
    try:
        run_installer([*command, "--no-index"], folder)
    except EnvironmentFailed:
        run_installer(command, folder)
    return shutil.rmtree(links)


def run_installer(command: Sequence[str], folder: Path) -> None:
    """Run an installer, which is killed with this process; EnvironmentFailed with its message."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        process = subprocess.Popen(
            bound(command),
            cwd=folder,  # uv reads the settings of a project in the current folder
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C.UTF-8", "NO_COLOR": "1"},
            start_new_session=True,
        )
        with process:
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)  # from here on, an exception kills it
                output = process.communicate()[0]
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()  # to the end of its pipe: none of its processes may write to a removed folder
                raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if process.returncode != 0:
        raise EnvironmentFailed(
            f"an environment with the versions of the model cannot be created: {_reason(output)}",
            remedy="check the network and the settings of pip (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, pip.conf) or uv "
            "(UV_INDEX, uv.toml); or run with the versions that are installed here: --allow-versions without --env",
        )


def _reason(output: str) -> str:
    lines = [line.strip() for line in redacted(output).splitlines() if not line.startswith("WARNING: ")]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return " ".join(errors or filter(None, lines))[-REASON:] or "no message"


def _copy_likewise(packages: Path) -> None:
    """Copy Likewise, as it is installed here or in a checkout, with the metadata that its plugins are found by."""
    distribution = importlib.metadata.distribution(OURS)
    for name, path in distribution_files({OURS: distribution}, PACKAGE):
        target = packages / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def find_uv() -> str | None:
    """The path of uv: on the PATH, or of the package; None if it is not installed."""
    if (path := shutil.which("uv")) is not None or importlib.util.find_spec("uv") is None:
        return path
    return str(importlib.import_module("uv").find_uv_bin())
