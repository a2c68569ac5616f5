"""The house imports without the heavy libraries; `make imports` holds the direction of the arrows."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "transformers",
    "mlflow",
    "pandas",
    "pyarrow",
    "pyspark",
    "ray",
    "boto3",
    "botocore",
    "openvino",
    "sklearn",
)
BLOCKED = f"""
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)
sys.meta_path.insert(0, Block())
"""


@pytest.mark.parametrize(
    "module",
    [
        "likewise",
        "likewise.api",
        "likewise.cli",
        "likewise.doctor",
        "likewise.bundles.open",
        "likewise.bundles.archive",
        "likewise.engine.load",
        "likewise.pipeline",
        "likewise.pipeline.engine",
        "likewise.engine.pyfunc",
        "likewise.builder.bundle",
        "likewise.dataplane",
        "likewise.wire",
        "likewise.server",
        "likewise.batch",
        "likewise.container",
        "likewise.images.build",
        "likewise.targets.sagemaker.target",
        "likewise.targets.container.target",
    ],
)
def test_imports_without_the_heavy_libraries(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"{BLOCKED}\nimport {module}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_block_blocks() -> None:
    done = subprocess.run([sys.executable, "-c", f"{BLOCKED}\nimport pandas"], capture_output=True, text=True)
    assert "blocked: pandas" in done.stderr
