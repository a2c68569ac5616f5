"""Nodes whose Python has Ray but not Likewise, and no network access."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sysconfig
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest
from tests.support.ray.callers import callers
from tests.support.ray.cluster import started_cluster
from tests.support.ray.deployments import pids, predictions_of, put
from tests.support.spark.cluster import OFFLINE

from likewise.bundles.open import open_bundle
from likewise.core.spec import ModelSpec
from likewise.shipping.environment import closure
from likewise.targets.ray.target import RayTarget
from likewise.testing.models import pyfunc_bundle

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.long]


def bare_python(folder: Path) -> Path:
    """The interpreter of a virtual environment with only `ray[serve]`, and network access only to its own host."""
    venv.create(folder, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for name in closure(["ray[serve]"], frozenset()):
        files = distribution(name).files or []
        for top in {file.parts[0] for file in files if ".." not in file.parts and file.parts[0] != "__pycache__"}:
            source, link = Path(str(distribution(name).locate_file(top))), site / top
            if source.exists() and not link.exists():
                link.symlink_to(source)
    own = "'localhost', '127.0.0.1', '::1', None"
    addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    hosts = f"{own}, '0.0.0.0', {', '.join(map(repr, addresses))}"
    offline = OFFLINE.replace('"localhost", "127.0.0.1", "::1", None', hosts)
    (site / "sitecustomize.py").write_text(offline.replace('("127.0.0.1", "::1")', f"({hosts})"))
    python = folder / "bin" / "python"
    checked = subprocess.run([python, "-c", "import ray.serve, likewise"], capture_output=True, text=True, cwd=folder)
    assert "No module named 'likewise'" in checked.stderr, checked.stderr
    return python


def test_bundle_and_environment_are_shipped_and_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pyfunc_bundle(tmp_path / "pyfunc", "7:")  # its environment contains MLflow
    model = ModelSpec(open_bundle(folder).digest, folder, "runs:/1/model", trust=True)
    with started_cluster(python=bare_python(tmp_path / "bare")) as cluster:
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(tmp_path / "driver-cache"))
        target = RayTarget("ray")
        receipt = put(target, "shipped", model)
        url = receipt.output("url")
        assert predictions_of(url, "a") == ["7:A"]
        cache = cluster.folder / "nodes-cache" / "ray"
        assert len([path for path in cache.iterdir() if path.is_dir()]) == 2  # the environment and the bundle
        shutil.rmtree(model.folder)
        shutil.rmtree(tmp_path / "driver-cache")
        shutil.rmtree(cache)  # as on another node
        (replica,) = pids(target, receipt)
        os.kill(replica, signal.SIGKILL)
        with callers(url, 1) as clients:
            clients.wait_for(7)
