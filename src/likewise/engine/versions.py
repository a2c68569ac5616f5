"""Compares the versions that a model was logged with to those that run here, and decides whether that matters.

Another major version of the flavor's library, or a missing one, is refused: its predictions may differ, or it may not
load.  So is another Python for code that was pickled: cloudpickle stores bytecode.  Everything else is one line.
"""

from __future__ import annotations

import mmap
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from likewise.bundles.format import LoggedEnvironment
from likewise.bundles.open import Bundle
from likewise.core.errors import VersionsDiffer
from likewise.core.extras import need
from likewise.engine.kinds import ModelFacts
from likewise.engine.requirements import without_comment

LIBRARIES = {
    "catboost": "catboost",
    "diviner": "diviner",
    "dspy": "dspy",
    "fastai": "fastai",
    "h2o": "h2o",
    "johnsnowlabs": "johnsnowlabs",
    "keras": "keras",
    "langchain": "langchain",
    "lightgbm": "lightgbm",
    "llama_index": "llama-index",
    "onnx": "onnxruntime",
    "openai": "openai",
    "paddle": "paddlepaddle",
    "pmdarima": "pmdarima",
    "prophet": "prophet",
    "pytorch": "torch",
    "sentence_transformers": "sentence-transformers",
    "sklearn": "scikit-learn",
    "spacy": "spacy",
    "spark": "pyspark",
    "statsmodels": "statsmodels",
    "tensorflow": "tensorflow",
    "transformers": "transformers",
    "xgboost": "xgboost",
}
"""The distribution that computes the predictions of each of MLflow's flavors."""

SAME = (
    ("mlflow", "mlflow-skinny"),
    ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"),
    ("paddlepaddle", "paddlepaddle-gpu"),
    ("pyspark", "pyspark-client"),
    ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos"),
    ("xgboost", "xgboost-cpu"),
)
"""Distributions of the same library."""

_ALIASES = {name: group for group in SAME for name in group}
_VERSION_KEYS = {"sklearn": "sklearn_version", "xgboost": "xgb_version", "lightgbm": "lgb_version"}
_PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".cloudpickle"})
_CODE = b"CodeType"  # how cloudpickle names the type of the bytecode that it stores
_MAJOR = re.compile(r"v?(?:(\d+)!)?(\d+)")
SHOWN = 3  # other packages in a line
PYTHON = "Python"
ENV = "add --env to run it in an environment with its own versions"
REMEDY = f"{ENV}; or --allow-versions to run it with these"

Installed = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Difference:
    """One package, or Python.  logged: its version or range, empty if none was logged; here: None if not installed."""

    name: str
    logged: str
    here: str | None

    def __str__(self) -> str:
        return f"{' '.join(filter(None, (self.name, self.logged)))} ({self._here()})"

    def _here(self) -> str:
        return "not installed here" if self.here is None else f"here {self.here}"


@dataclass(frozen=True, slots=True)
class Versions:
    """How this environment differs from the logged one: what matters, and the rest, the most important first."""

    refused: tuple[Difference, ...] = ()
    others: tuple[Difference, ...] = ()

    @property
    def note(self) -> str | None:
        """One line that lists the first differences and counts the rest; None if there is none."""
        all_of_them = (*self.refused, *self.others)
        if not all_of_them:
            return None
        shown = all_of_them[: len(self.refused) + SHOWN]
        rest = len(all_of_them) - len(shown)
        listed = ", ".join(map(str, shown)) + (f", and {rest} more" if rest else "")
        return (
            f"the model was logged with other versions: {listed}; predictions may differ, and --env runs it in an "
            "environment with its own"
        )

    @property
    def refusal(self) -> VersionsDiffer | None:
        """The error for what matters; None if nothing does."""
        if not self.refused:
            return None
        listed = ", ".join(map(str, self.refused))
        if missing := [f"'{each.name}{_pin(each.logged)}'" for each in self.refused if each.here is None]:
            return VersionsDiffer(
                f"the model needs a library that it was logged with: {listed}",
                remedy=f"pip install {' '.join(missing)}; or {ENV}",
            )
        python = any(each.name == PYTHON for each in self.refused)
        why = "which cannot run the code in its pickles" if python else "another major version of its library"
        cause = f"the model was logged with {listed}, {why}: it may not load, or give other predictions"
        return VersionsDiffer(cause, remedy=REMEDY)

    def as_dict(self) -> dict[str, object]:
        """As a JSON object, for `likewise inspect --json`."""
        rows = [(each, each in self.refused) for each in (*self.refused, *self.others)]
        return {
            "differ": [
                {"name": each.name, "logged": each.logged, "here": each.here, "refused": refused}
                for each, refused in rows
            ]
        }


def versions_of(bundle: Bundle) -> Versions:
    """The comparison for `bundle`; call it only for an engine that runs the model with its own libraries."""
    return compare(bundle.manifest.environment, flavors_of(bundle.model_path), bundle.model_path)


def compare_model(model: ModelFacts, *, code: bool, allow: bool) -> str | None:
    """The line for a model that is being bundled; None if all is as logged, or no engine would need that.

    code: whether the model's code may run.  Raises VersionsDiffer, unless `allow` is set, or an engine can do without.
    """
    needing = [kind.needs_libraries for kind in model.kinds() if code or not kind.runs_code]
    if not any(needing):
        return None
    versions = compare(model.environment, model.flavors, model.folder)
    if all(needing) and not allow and (refusal := versions.refusal) is not None:
        raise refusal
    return versions.note


def compare(
    logged: LoggedEnvironment,
    flavors: Mapping[str, Mapping[str, object]],
    model: Path | None = None,
    *,
    python: str | None = None,
    installed: Installed | None = None,
) -> Versions:
    """Compare what was logged to what is installed.

    flavors: as in `MLmodel`.  model: the folder of the model, whose pickles are read, but not loaded.  python,
    installed: what runs here, by default this process.  Requirements that are options, URLs or paths have no version to
    compare, and are left out.
    """
    find, here = installed or installed_version, python or platform.python_version()
    requirements = {each.name: each for each in _requirements(logged.requirements)}
    libraries = {
        LIBRARIES[flavor]: _logged_version(flavor, flavors[flavor]) for flavor in LIBRARIES if flavor in flavors
    }
    refused: list[Difference] = []
    others: list[Difference] = []
    for name, known in libraries.items():
        wanted = next((requirements.pop(each) for each in alike(name) if each in requirements), None)
        difference = _difference(name, str(wanted.specifier) if wanted else known and f"=={known}", find)
        if difference is not None:
            (refused if _matters(difference) else others).append(difference)
    if (logged.python or here).split(".")[:2] != here.split(".")[:2]:
        other = Difference(PYTHON, str(logged.python), here)
        (refused if model is not None and has_pickled_code(model) else others).append(other)
    rest = sorted(requirements.values(), key=lambda each: (each.name in alike("mlflow"), each.name))
    found = (_difference(each.name, str(each.specifier), find) for each in rest)
    return Versions(tuple(refused), (*others, *filter(None, found)))


def flavors_of(model: Path) -> dict[str, Mapping[str, object]]:
    """The flavors in the `MLmodel` of the folder `model`; none if it has no such file, or one that is not readable."""
    flavors = mlmodel_of(model).get("flavors")
    return {str(k): v for k, v in flavors.items() if isinstance(v, dict)} if isinstance(flavors, dict) else {}


def mlmodel_of(model: Path) -> Mapping[str, object]:
    """The contents of the `MLmodel` of the folder `model`; empty if it has none, or one that is not readable."""
    path = model / "MLmodel"
    if not path.is_file():
        return {}
    yaml = need("yaml", extra="mlflow")
    try:
        raw = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return raw if isinstance(raw, dict) else {}


def alike(name: str) -> tuple[str, ...]:
    """The distributions of the same library as `name`, which comes first."""
    return (name, *(each for each in _ALIASES.get(name, ()) if each != name))


def installed_version(name: str) -> str | None:
    """The installed version of the library `name`, also under another name; None if it is not installed."""
    for each in alike(name):
        try:
            return version(each)
        except PackageNotFoundError:
            continue
    return None


def has_pickled_code(model: Path) -> bool:
    """Whether a pickle of the model contains bytecode, as cloudpickle writes it for what no module defines."""
    return any(_contains(path, _CODE) for path in sorted(model.rglob("*")) if path.suffix in _PICKLES)


def _contains(path: Path, word: bytes) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(word) >= 0


def _requirements(lines: tuple[str, ...]) -> Iterator[Any]:
    """The requirements that apply here, with canonical names, without options, paths and unreadable lines."""
    parser, utils = need("packaging.requirements", extra="mlflow"), need("packaging.utils", extra="mlflow")
    for line in map(without_comment, lines):
        try:
            requirement = parser.Requirement(line)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
        except ValueError:  # InvalidRequirement, UndefinedComparison and InvalidVersion are
            continue
        requirement.name = utils.canonicalize_name(requirement.name)
        yield requirement


def _logged_version(flavor: str, config: Mapping[str, object]) -> str:
    """The version that the flavor itself records, for a model whose requirements leave it out; empty if none."""
    return str(config.get(_VERSION_KEYS.get(flavor, f"{flavor}_version")) or "")


def _difference(name: str, specifier: str, find: Installed) -> Difference | None:
    """None if the installed version meets `specifier`, in which `==` also accepts another local version (`+cpu`)."""
    here, sets = find(name), need("packaging.specifiers", extra="mlflow")
    if here is None:
        return Difference(name, specifier.removeprefix("=="), None)
    try:
        wanted = sets.SpecifierSet(re.sub(r"\+[\w.-]+", "", specifier))
        if wanted.contains(here.partition("+")[0], prereleases=True):
            return None
    except ValueError:  # not a version, in the requirement or of the installed package
        if specifier in ("", f"=={here}"):
            return None
    return Difference(name, specifier.removeprefix("=="), here)


def _matters(difference: Difference) -> bool:
    """Whether it is missing, or no version that the requirement names has the same major number."""
    if difference.here is None:
        return True
    majors = [_major(each.lstrip("=<>!~ ")) for each in difference.logged.split(",")]
    return _major(difference.here) not in majors


def _major(text: str) -> tuple[str, str] | None:
    match = _MAJOR.match(text)
    return None if match is None else (match[1] or "0", match[2])


def _pin(logged: str) -> str:
    return f"=={logged}" if logged[:1].isdigit() else logged
