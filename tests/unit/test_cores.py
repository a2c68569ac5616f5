"""The number of cores by affinity and control groups, and the variables for thread pools."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.core.cores import COUNTS, OURS, THREADS, WAITING, limit_threads, thread_environment, usable_cores
from likewise.doctor import examine
from likewise.engine.pools import loaded_pools

NAMES = [*COUNTS, *WAITING]
CORES = len(os.sched_getaffinity(0))
users = st.dictionaries(st.sampled_from([*NAMES, "PATH"]), st.integers(1, 99).map(str))


@given(users, st.integers(0, 99))
def test_user_settings_are_kept_and_the_rest_is_set(user: dict[str, str], cores: int) -> None:
    environment = thread_environment(user, cores)
    assert user.items() <= environment.items()
    expected = user.get(THREADS, str(max(1, cores)))
    assert {name: environment[name] for name in COUNTS if name not in user} == dict.fromkeys(
        set(COUNTS) - user.keys(), expected
    )
    assert {name: environment[name] for name in WAITING if name not in user} == {
        name: value for name, value in WAITING.items() if name not in user
    }


@given(users, st.integers(1, 99), st.integers(1, 99))
def test_child_process_gets_its_own_number(user: dict[str, str], first: int, second: int) -> None:
    """What Likewise has set in the parent does not count as the user's setting."""
    assert thread_environment(thread_environment(user, first), second) == thread_environment(user, second)


@pytest.mark.parametrize(("value", "threads"), [("3,2", "3"), ("0", "5"), ("", "5"), ("many", "5")])
def test_number_of_a_nested_or_invalid_setting(value: str, threads: str) -> None:
    environment = thread_environment({THREADS: value}, 5)
    assert environment[THREADS] == value
    assert {environment[name] for name in COUNTS[1:]} == {threads}


def test_own_process_has_the_cores() -> None:
    environment: dict[str, str] = {}
    limit_threads(environment)
    assert int(environment[THREADS]) == usable_cores()


V2 = "0::/"
V1 = "4:cpu,cpuacct:/docker/a1\n1:memory:/docker/a1\n0::/"


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        pytest.param(V2, {}, None, id="no limit"),
        pytest.param(V2, {"cpu.max": "max 100000"}, None, id="v2, unlimited"),
        pytest.param(V2, {"cpu.max": "100000 100000"}, 1, id="v2"),
        pytest.param(V2, {"cpu.max": "20000 100000"}, 1, id="v2, less than a core"),
        pytest.param(V2, {"cpu.max": "99900000 100000"}, None, id="v2, more than there are"),
        pytest.param("0::/a/b", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000"}, 1, id="v2, outer group"),
        pytest.param("0::/kubepods/x", {"cpu.max": "100000 100000"}, 1, id="v2, path of the host"),
        pytest.param(V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None, id="v1, unlimited"),
        pytest.param(V1, {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1, id="v1, own root"),
        pytest.param(
            V1,
            {"cpu/docker/a1/cpu.cfs_quota_us": "50000", "cpu/docker/a1/cpu.cfs_period_us": "100000"},
            1,
            id="v1, group",
        ),
        pytest.param(V1, {"memory/docker/a1/cpu.max": "100000 100000"}, None, id="another controller"),
        pytest.param(V2, {"cpu.max": "100000"}, None, id="unreadable"),
    ],
)
def test_quotas_limit_the_cores(tmp_path: Path, groups: str, files: Mapping[str, str], cores: int | None) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert usable_cores(tmp_path) == (cores or CORES)


def test_without_control_groups_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == CORES


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({}, ""),
        ({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}, ""),
        ({"OMP_WAIT_POLICY": "active"}, "unset them"),
        ({"GOMP_SPINCOUNT": "10000"}, "unset them"),
        ({"OMP_NUM_THREADS": "9999"}, f"at most {CORES}"),
    ],
)
def test_doctor_shows_own_settings(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], advice: str) -> None:
    for name in (*NAMES, "GOMP_SPINCOUNT", OURS):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    limit_threads()
    (finding,) = (each for each in examine() if each.name == "Threads")
    assert all(f"{name}={value}" in finding.found for name, value in settings.items())
    assert advice in finding.remedy
    assert bool(advice) == bool(finding.remedy)


def test_pools_of_loaded_libraries_are_found() -> None:
    import sklearn.utils._openmp_helpers  # noqa: F401  loads OpenMP

    pools = loaded_pools()
    assert pools["openblas of numpy"] >= 1
    assert any(name.startswith("openmp of ") for name in pools)
