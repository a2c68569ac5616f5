"""All modules can be imported without the heavy libraries; `make imports` checks the direction of imports."""

from __future__ import annotations

import sys

from tests.support.processes import run

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


MODULES = (
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
    "likewise.server.app",
    "likewise.server.run",
    "likewise.batch",
    "likewise.container",
    "likewise.images.build",
    "likewise.targets.sagemaker.target",
    "likewise.targets.container.target",
)
SERVING = ("numpy", "starlette", "uvicorn", "prometheus_client")


def test_modules_import_without_the_heavy_libraries() -> None:
    run([sys.executable, "-c", BLOCKED + "".join(f"import {module}\n" for module in MODULES)])


def test_blocked_library_cannot_be_imported() -> None:
    done = run([sys.executable, "-c", f"{BLOCKED}\nimport pandas"], code=1)
    assert "blocked: pandas" in done.stderr


def test_cli_does_not_import_server_libraries() -> None:
    code = f"import sys, likewise.cli; print([name for name in {SERVING!r} if name in sys.modules])"
    assert run([sys.executable, "-c", code]).stdout == "[]\n"


def test_serving_does_not_import_what_its_libraries_seldom_use() -> None:
    """These take as long to import as everything else that a compiled pipeline needs."""
    code = """
import sys
from likewise.engine.openvino_calls import runtime
from likewise.pipeline.steps import DetectLanguage
runtime()
step = DetectLanguage()
step.open(None)
print(step.prepare({"text": ["This is a text in English."]}))
print([name for name in ("openvino.tools.ovc", "absl", "robust_downloader", "requests") if name in sys.modules])
import openvino
try:
    openvino.convert_model("no such model")
except Exception as error:
    print(type(error).__name__, "openvino.tools.ovc" in sys.modules)
"""
    lines = run([sys.executable, "-c", code]).stdout.splitlines()
    assert lines[:2] == ["{'language': ['en']}", "[]"]
    assert lines[2].endswith("True")
