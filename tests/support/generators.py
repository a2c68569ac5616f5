"""Programs that generate Python clients from an OpenAPI document, installed in the tests' cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.machine import need_program
from tests.support.shared import CACHE, exclusive

# openapi-python-client's limit for typer excludes the version that we lock, so it has a separate folder
PYTHON_CLIENT = ("openapi-python-client==0.29.1", "ruamel.yaml==0.19.1", "typer==0.27.3")
GENERATOR = ("openapi-generator-cli==7.26.0",)


def python_client(url: str, package: Path) -> str:
    """Create `package` with openapi-python-client; returns its output."""
    path = _installed(PYTHON_CLIENT)
    start = f"import sys; sys.path.insert(0, {str(path)!r}); from openapi_python_client.cli import app; app()"
    words = ["generate", "--url", f"{url}/openapi.json", "--output-path", str(package), "--meta", "none"]
    return _run([sys.executable, "-c", start, *words])


def generator_client(url: str, folder: Path, package: str) -> str:
    """Create `package` in `folder` with openapi-generator; returns its output."""
    java = need_program("java", "openjdk-17-jre-headless", "openapi-generator")
    jar = _installed(GENERATOR) / "openapi_generator_cli" / "openapi-generator.jar"
    words = ["generate", "-g", "python", "-i", f"{url}/openapi.json", "-o", str(folder)]
    return _run([java, "-jar", str(jar), *words, f"--additional-properties=packageName={package}"])


def _installed(packages: tuple[str, ...]) -> Path:
    """A folder with the packages; their dependencies are those of our own environment."""
    folder = CACHE / "-".join(packages).replace("==", "-")
    with exclusive(folder.with_suffix(".lock")):
        if not (folder / "complete").is_file():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder)]
            subprocess.run([*pip, *packages], check=True)
            (folder / "complete").touch()
    return folder


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
