"""Checks what this machine supports. Each finding states what was found and how to install what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from likewise.bundles.cache import cache_home
from likewise.core.cores import own_settings, usable_cores, usable_threads
from likewise.core.extras import install_command
from likewise.core.unpack import folder_size
from likewise.engine.kinds import kinds

REGISTRY = "LIKEWISE_REHEARSAL_REGISTRY"
TIMEOUT_S = 5.0  # of each program and request
LIBRARIES = {
    "pyarrow": ("likewise[batch]", "score files"),
    "pyspark": ("likewise[spark]", "score on Spark"),
    "ray": ("likewise[ray]", "deploy on Ray Serve"),
    "boto3": ("likewise[aws]", "models in s3://"),
    "moto": ("likewise[rehearsal]", "rehearse deployments on SageMaker"),
    "installer": ("likewise[images]", "build container images"),
}
"""By distribution name: the requirement that installs it, and its purpose. Each kind of engine adds its own library."""

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")


@dataclass(frozen=True, slots=True)
class MachineFinding:
    """One line of the report. state: `broken` if Likewise cannot run, `missing` for an optional feature."""

    name: str
    state: Literal["ok", "missing", "broken"]
    found: str
    remedy: str = ""


def examine() -> list[MachineFinding]:
    """Run all checks; the findings in the order of the report. Uses the network only for AWS, if credentials exist."""
    checks: list[Callable[[], MachineFinding]] = [
        _python,
        _cpu,
        _threads,
        _memory,
        _disk,
        _cache,
        *(partial(_library, name, *about) for name, about in _libraries().items()),
        _java,
        _containers,
        _registry,
        _gpu,
        _aws,
    ]
    with ThreadPoolExecutor(len(checks)) as pool:
        return [future.result() for future in [pool.submit(check) for check in checks]]


def _cache() -> MachineFinding:
    home = cache_home()
    folders = sorted(path for path in home.glob("*") if path.is_dir())
    sizes = {path.name: folder_size(path) / 1e6 for path in folders}
    if not any(sizes.values()):
        return MachineFinding("Cache", "ok", f"{home}, empty")
    each = ", ".join(f"{name} {size:,.0f}" for name, size in sizes.items())
    found = f"{home}, {sum(sizes.values()):,.0f} MB ({each}); delete what no deployment uses"
    return MachineFinding("Cache", "ok", found)


def _python() -> MachineFinding:
    found = f"{platform.python_version()} at {sys.executable}"
    if (3, 11) <= sys.version_info < (3, 14):
        return MachineFinding("Python", "ok", found)
    return MachineFinding("Python", "broken", found, "use Python 3.11, 3.12 or 3.13")


def _cpu() -> MachineFinding:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return MachineFinding("CPU", "ok", f"{usable_cores()} cores, {platform.machine()}")
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    flags = set(re.findall(r"^flags\s*:\s*(.+)$", text, re.M)[:1][0].split()) if "flags" in text else set()
    extensions = ", ".join(f for f in CPU_FLAGS if f in flags) or "none of the vector extensions that engines use"
    name = model[1] if model else platform.machine()
    return MachineFinding("CPU", "ok", f"{usable_cores()} cores, {name}: {extensions}")


def _threads() -> MachineFinding:
    """The thread pools that commands give to libraries, and the user's own settings if these slow models down."""
    cores, own = usable_cores(), own_settings(os.environ)
    found = f"{usable_threads()} per library, divided among workers; they sleep while they wait"
    if not own:
        return MachineFinding("Threads", "ok", found)
    found = f"{usable_threads()} per library; your settings: {' '.join(f'{name}={own[name]}' for name in own)}"
    spins = own.get("OMP_WAIT_POLICY", "").upper() == "ACTIVE" or own.get("GOMP_SPINCOUNT", "0") != "0"
    remedy = "unset them, if other programs use this machine: waiting threads take the cores" if spins else ""
    if usable_threads() > cores:
        remedy = f"set OMP_NUM_THREADS to at most {cores}, the number of cores, or unset it"
    return MachineFinding("Threads", "ok", found, remedy)


def _memory() -> MachineFinding:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return MachineFinding("Memory", "ok", f"{total:.1f} GiB")


def _disk() -> MachineFinding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    state: Literal["ok", "missing"] = "ok" if free > 3 else "missing"
    return MachineFinding(
        "Disk", state, f"{free:.1f} GiB free here", "" if free > 3 else "free 3 GiB of space for bundles and images"
    )


def _libraries() -> dict[str, tuple[str, str]]:
    engines = {kind.library: (" ".join(kind.requirements), kind.purpose) for kind in kinds() if kind.library}
    return {**engines, **LIBRARIES}


def _library(name: str, requirement: str, purpose: str) -> MachineFinding:
    try:
        return MachineFinding(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        own = re.fullmatch(r"likewise\[(.+)\]", requirement)
        remedy = install_command(own[1]) if own else f"pip install '{requirement}'"
        return MachineFinding(name, "missing", f"not installed ({purpose})", remedy)


def _java() -> MachineFinding:
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else "java"
    code, text = _run(java, "-version")
    version = re.search(r'version "(\d+)', text)
    if code == 0 and version and int(version[1]) >= 17:
        return MachineFinding("Java", "ok", text.splitlines()[0])
    found = text.splitlines()[0] if text else "not found"
    return MachineFinding("Java", "missing", f"{found} (Spark needs 17 or newer)", "install Java 17 or newer")


def _containers() -> MachineFinding:
    """Docker or Podman, which are needed to run images but not to build them."""
    problems: list[str] = []
    for program in ("docker", "podman"):
        template = "{{.ServerVersion}}" if program == "docker" else "{{.Version.Version}}"
        if shutil.which(program) is None:
            continue
        code, text = _run(program, "info", "--format", template)
        if code == 0 and text:
            return MachineFinding("Containers", "ok", f"{program} {text.splitlines()[-1][:60]}")
        problem = text.splitlines()[-1][:160] if text else f"no response within {TIMEOUT_S:.0f} s"
        problems.append(f"{program} is installed but does not respond: {problem}")
    remedy = "start Docker, or give this user access to its socket," if problems else "install Docker or Podman"
    return MachineFinding(
        "Containers", "missing", "; ".join(problems) or "neither Docker nor Podman", f"{remedy} to run images"
    )


def _registry() -> MachineFinding:
    """The registry that takes the place of ECR in a rehearsal."""
    found = os.environ.get(REGISTRY) or shutil.which("docker-registry")
    if found:
        return MachineFinding("docker-registry", "ok", found)
    remedy = f"apt-get install docker-registry, or set {REGISTRY}=HOST:PORT to yours"
    return MachineFinding("docker-registry", "missing", "not found (rehearse deployments on SageMaker)", remedy)


def _gpu() -> MachineFinding:
    code, text = _run("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    if code == 0 and text:
        return MachineFinding("GPU", "ok", text.replace("\n", "; "))
    return MachineFinding("GPU", "missing", "none", "not needed: the engines run on the CPU")


def _aws() -> MachineFinding:
    try:
        import boto3
        import botocore.config
        import botocore.exceptions
    except ModuleNotFoundError:
        return MachineFinding("AWS identity", "missing", "boto3 is not installed", install_command("aws"))
    remedy = "run aws configure, or set AWS_PROFILE"
    if not {"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN"} & os.environ.keys() and not _aws_files():
        return MachineFinding("AWS identity", "missing", "no credentials", remedy)
    config = botocore.config.Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"max_attempts": 0})
    try:
        sts = boto3.client("sts", config=config, region_name=os.environ.get("AWS_REGION", "us-east-1"))
        return MachineFinding("AWS identity", "ok", str(sts.get_caller_identity()["Arn"]))
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        return MachineFinding("AWS identity", "missing", str(error)[:200], remedy)


def _aws_files() -> bool:
    folder = Path.home() / ".aws"
    return any((folder / name).is_file() for name in ("credentials", "config"))


def _run(*argv: str) -> tuple[int | None, str]:
    """The exit code and output of a program; the code is None if the program does not exist or does not end in time."""
    try:
        process = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None, ""
    return process.returncode, (process.stdout or process.stderr).strip()
