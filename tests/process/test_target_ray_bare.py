"""Nodes whose Python has Ray and nothing of Likewise, and no network to fetch anything from."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sysconfig
import venv
from importlib.metadata import distribution
from pathlib import Path

import httpx
import pytest
from tests.process.ray_cluster import RayCluster, ray_cluster
from tests.process.ray_room import callers, put, versioned
from tests.support.spark.cluster import OFFLINE

from likewise.shipping.environment import closure
from likewise.targets.ray.target import RayTarget


def bare_python(folder: Path) -> Path:
    """The interpreter of a virtual environment that holds what `ray[serve]` needs, and reaches its own host only."""
    venv.create(folder, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for name in closure(["ray[serve]"], frozenset()):
        files = distribution(name).files or []
        for top in {file.parts[0] for file in files if ".." not in file.parts and file.parts[0] != "__pycache__"}:
            source, link = Path(str(distribution(name).locate_file(top))), site / top
            if source.exists() and not link.exists():
                link.symlink_to(source)
    own = "'localhost', '127.0.0.1', '::1', None"
    here = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    hosts = f"{own}, '0.0.0.0', {', '.join(map(repr, here))}"
    offline = OFFLINE.replace('"localhost", "127.0.0.1", "::1", None', hosts)
    (site / "sitecustomize.py").write_text(offline.replace('("127.0.0.1", "::1")', f"({hosts})"))
    python = folder / "bin" / "python"
    known = subprocess.run([python, "-c", "import ray.serve, likewise"], capture_output=True, text=True, cwd=folder)
    assert "No module named 'likewise'" in known.stderr, known.stderr
    return python


def replica_pid(target: RayTarget, name: str, cluster: RayCluster) -> int:
    from likewise.targets.ray.session import ask

    (replica,) = ask(cluster.address, "status", {"name": name})["replicas"]
    pid: int = replica["pid"]
    return pid


@pytest.mark.slow
def test_bundle_and_environment_travel_and_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ray_cluster(python=bare_python(tmp_path / "bare")) as cluster:
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "driver-cache"))
        target, model = RayTarget("ray"), versioned(tmp_path, 7)
        receipt = put(target, "traveller", model)
        url = receipt.output("url")
        assert httpx.post(url, json={"inputs": ["a"]}, timeout=60).json()["predictions"] == [
            {"text": "A", "version": 7}
        ]
        kept = cluster.folder / "nodes-cache" / "ray"
        assert len([path for path in kept.iterdir() if path.is_dir()]) == 2  # the environment and the bundle, once each
        shutil.rmtree(model.folder)
        shutil.rmtree(tmp_path / "driver-cache")
        shutil.rmtree(kept)  # as on another node
        os.kill(replica_pid(target, "traveller", cluster), signal.SIGKILL)
        with callers(url, 1) as asking:
            asking.wait_for(7)
