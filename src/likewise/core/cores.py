"""The CPUs that this process may use, and the thread pools of the numeric libraries that are limited to them.

Each library counts the machine's cores, not those of the container or the task, and OpenMP's threads spin while they
wait: with more threads than free cores, they take the time of the threads that they wait for.  The variables count only
if they are set before the library is loaded.

Pickled by value to workers where Likewise may not be installed, so this module imports the standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

THREADS = "OMP_NUM_THREADS"
COUNTS = (
    THREADS,  # OpenMP: torch, XGBoost, LightGBM, scikit-learn; also read by `usable_threads`
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",  # NumPy on macOS
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",  # tokenizers
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "LOKY_MAX_CPU_COUNT",  # scikit-learn's n_jobs=-1
)
"""Variables with a number of threads."""

WAITING = {
    "OMP_WAIT_POLICY": "PASSIVE",  # threads sleep while they wait
    "KMP_BLOCKTIME": "0",  # the same for Intel's and LLVM's OpenMP
}

OURS = "LIKEWISE_THREAD_VARIABLES"
"""Names of the variables that Likewise has set: a child process may have another number of cores, and replaces them."""


def limit_threads(environment: MutableMapping[str, str] | None = None) -> None:
    """Set the variables in `environment`, by default this process's; call it before libraries are loaded."""
    target = os.environ if environment is None else environment
    target.update(thread_environment(target, usable_cores()))


def thread_environment(inherited: Mapping[str, str], cores: int) -> dict[str, str]:
    """`inherited` plus variables that limit each library to `cores` threads, which sleep while they wait.

    Variables that the user set are kept, and the user's OMP_NUM_THREADS is the number for all libraries.
    """
    before = inherited.get(OURS, "").split(",")
    given = {name: value for name, value in inherited.items() if name not in before}
    threads = str(_number(given.get(THREADS, "")) or max(1, cores))
    added = {name: value for name, value in {**dict.fromkeys(COUNTS, threads), **WAITING}.items() if name not in given}
    return {**given, **added, OURS: ",".join(added)}


def own_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of thread pools that the user has set, and Likewise therefore keeps."""
    before = environment.get(OURS, "").split(",")
    known = (*COUNTS, *WAITING, "GOMP_SPINCOUNT")
    return {name: environment[name] for name in known if name in environment and name not in before}


def usable_threads() -> int:
    """Number of compute threads: `OMP_NUM_THREADS`, which the numeric libraries honour too, or one per usable core."""
    return _number(os.environ.get(THREADS, "")) or usable_cores()


def _number(value: str) -> int:
    """The first number of OMP_NUM_THREADS, which has one per level of nesting; 0 if it is not a positive number."""
    first = value.split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def usable_cores(root: Path = Path("/")) -> int:
    """Number of CPUs that this process may use: those of its affinity, limited by the quotas of its control groups.

    root: of the file system; other than `/` for tests.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (quota for group in control_groups("cpu", root) for quota in _quota(group))
    return max(1, round(min([usable, *quotas])))


def control_groups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of the control groups of this process, in version 1 and 2; each limits the groups inside."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and controller not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / (controller if controllers else "")
        group = mounted / path.lstrip("/")  # missing in a container without a private namespace
        for folder in (group, *group.parents):
            yield folder
            if folder == mounted:
                break


def _quota(group: Path) -> Iterator[float]:
    for quota, period in (("cpu.max", None), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            values = (group / quota).read_text().split()
            limit = int(values[0]) / int(values[1] if period is None else (group / period).read_text())
        except (OSError, ValueError, IndexError, ZeroDivisionError):  # none: version 2 has "max", version 1 -1
            continue
        if limit > 0:
            yield limit
