"""What runs when a model is loaded without being in a pickle: Python files, and settings that name code."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from mmap import mmap
from pathlib import PurePosixPath
from typing import Any

from likewise.builder.scan.machine import Name
from likewise.core.extras import need

BY_SUFFIX = {
    ".py": "Python code",
    ".pyc": "compiled Python code",
    ".pyd": "a native library",
    ".so": "a native library",
    ".dll": "a native library",
    ".dylib": "a native library",
    ".whl": "a Python package, which image builds install",
    ".egg": "a Python package",
    ".ipynb": "a notebook, which MLflow runs if it is the model's code",
}
SETTINGS = (".json", ".yaml", ".yml")
LAMBDA = "a Keras Lambda layer, whose code is in the file"
_LAMBDA = re.compile(rb'"class_name"\s*:\s*"Lambda"')


def by_name(name: str) -> str | None:
    """What a file with this name contains that runs; None for all other files."""
    return BY_SUFFIX.get(PurePosixPath(name).suffix.lower())


def is_settings(name: str) -> bool:
    """Whether `settings` reads the file."""
    path = PurePosixPath(name)
    return path.name == "MLmodel" or path.suffix.lower() in SETTINGS


def settings(name: str, text: bytes) -> tuple[tuple[str, ...], Counter[Name]]:
    """Texts about code that a JSON or YAML file names, and the classes in the schema of a skops or Keras file.

    Raises ValueError if it cannot be read.
    """
    if PurePosixPath(name).suffix.lower() == ".json":
        document = json.loads(text)
    else:
        yaml = need("yaml", extra="mlflow")
        try:
            document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())[:200]) from error
    texts: dict[str, None] = {}
    classes: Counter[Name] = Counter()
    for mapping in _mappings(document):
        texts |= dict.fromkeys(_texts(mapping))
        classes.update(_class(mapping))
    return tuple(texts), classes


def references(text: bytes) -> tuple[str, ...]:
    """The URIs of the models and files that an `MLmodel` declares for Likewise; none if it cannot be read."""
    yaml = need("yaml", extra="mlflow")
    try:
        declared = yaml.safe_load(text)["metadata"]["likewise"]
        steps = (declared.get("pipeline") or {}).get("steps") or ()
        uris = [*(declared.get("references") or ()), *(step["model"] for step in steps if "model" in step)]
    except Exception:  # noqa: BLE001  any document
        return ()
    return tuple(dict.fromkeys(uri for uri in uris if isinstance(uri, str)))


def has_keras_lambda(content: bytes | memoryview | mmap) -> bool:
    """Whether the bytes of an HDF5 file contain the configuration of a Lambda layer."""
    return _LAMBDA.search(content) is not None


def _class(mapping: Mapping[Any, Any]) -> Iterator[Name]:
    """The class or function that a skops schema, or the configuration of a Keras 3 model, names."""
    function = mapping.get("config") if mapping.get("class_name") == "function" else None
    for module, name in (
        (mapping.get("__module__"), mapping.get("__class__")),
        (mapping.get("module"), function or mapping.get("class_name")),
    ):
        if isinstance(module, str) and isinstance(name, str):
            yield Name(module, name)


def _texts(mapping: Mapping[Any, Any]) -> Iterator[str]:
    if mapping.get("class_name") == "Lambda":
        yield LAMBDA
    if mapping.get("auto_map"):
        yield "auto_map: transformers loads classes from Python files"
    if mapping.get("trust_remote_code") not in (None, False, "false"):
        yield "trust_remote_code: transformers runs code from the model's repository"
    if isinstance(path := mapping.get("model_code_path"), str):
        yield f"model_code_path: MLflow runs {path}"
    if isinstance(module := mapping.get("loader_module"), str) and not module.startswith("mlflow."):
        yield f"loader_module: MLflow imports {module}"


def _mappings(document: object) -> Iterator[Mapping[Any, Any]]:
    """All mappings in a document, each once: aliases in YAML can repeat one any number of times."""
    pending, seen = [document], set()
    while pending:
        value = pending.pop()
        if not isinstance(value, dict | list) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            yield value
        pending += value.values() if isinstance(value, dict) else value
