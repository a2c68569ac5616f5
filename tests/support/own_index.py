"""Tiny wheels with which an environment of a model is created in seconds and without a network.

The wheel of each requirement of Likewise is empty; that of MLflow lets Python find the real packages of this process.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from textwrap import dedent

from mlflow.models import ModelSignature
from tests.support.models import TEXT, save_code
from tests.support.wheels import PRIVATE, make_wheel

from likewise.bundles.format import LoggedEnvironment
from likewise.shipping.logged_environment import wanted

CODE = """
    import likewise_private_thing
    import mlflow


    class Versioned(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input):
            return [f"{each} {likewise_private_thing.x}" for each in model_input["text"]]


    mlflow.models.set_model(Versioned())
"""
UNREACHABLE = "http://127.0.0.1:1/simple"


def make_links(folder: Path) -> Path:
    """Wheels in `folder` of everything that an environment with `likewise-private-thing` needs."""
    paths = [path for path in sys.path if path.endswith("site-packages")] or site.getsitepackages()
    needed = wanted(LoggedEnvironment(), trusted=True, extras=("ray", "spark"), report=print).requirements
    for line in needed:
        name = next(part for part in line.replace("[", "=").replace("<", "=").replace(">", "=").split("="))
        outer = {"zz-outer.pth": "\n".join(paths) + "\n"} if name == "mlflow" else {}
        number = "80" if name == "setuptools" else version(name).partition("+")[0]
        make_wheel(folder, name, number, files=outer)
    make_wheel(folder, PRIVATE, "1.0", files={"likewise_private_thing.py": "x = 'of version 1.0'\n"})
    make_wheel(folder, PRIVATE, "2.0", files={"likewise_private_thing.py": "x = 'of version 2.0'\n"})
    return folder


def save_versioned(folder: Path, requirements: Sequence[str]) -> Path:
    """A model with the lines `requirements` that answers with the version of the private package, which it imports.

    Its code does not run while it is saved.
    """
    empty = "import mlflow\nmlflow.models.set_model(mlflow.pyfunc.PythonModel())\n"
    save_code(folder, empty, signature=ModelSignature(TEXT))
    (folder / "code.py").write_text(dedent(CODE))
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
    return folder


def settings(cache: Path, links: Path | None, index: str = UNREACHABLE) -> dict[str, str]:
    """The variables of a user whose pip and uv take packages from `links` alone, None for `index` alone."""
    own = {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index, "PIP_RETRIES": "0", "UV_HTTP_RETRIES": "0"}
    if links is not None:
        own = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links), "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(links)}
    others = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    return {**others, "PIP_CONFIG_FILE": os.devnull, **own, "LIKEWISE_CACHE_HOME": str(cache)}
