"""Finds the models and files that a pipeline opens, by loading it once in a child process.

Vendored: everything opened through MLflow's artifact API, with any URI scheme, including `download_artifacts(run_id=…)`
and `get_run(…).info.artifact_uri`.  Rejected with a clear error, because a bundle cannot contain it: other requests to
the tracking store, files outside the model, databases, the network.  Not detected: files that a compiled library opens
without Python, and what the pipeline opens only for inputs unlike its example.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likewise.builder.audit import AuditWatch
from likewise.builder.failures import mapped
from likewise.builder.machine_files import LOG_FILES, described
from likewise.builder.resolve import MLFLOW_SETTINGS, fetch, plain_name, same_content
from likewise.bundles.folder import inventory
from likewise.bundles.references import lookup, normal
from likewise.core import tagged_json
from likewise.core.errors import LikewiseError, ModelInvalid, NotSelfContained
from likewise.core.extras import need
from likewise.core.uris import redacted
from likewise.engine.child import Task, run_child, run_task
from likewise.engine.example import predict_example, read_example
from likewise.engine.plain_values import plain
from likewise.engine.pyfunc import load_pyfunc
from likewise.engine.vendored import VendoredFiles, as_mlflow_error, likewise_cause, restrict_process

TIMEOUT = 600.0  # seconds, downloads included


@dataclass(frozen=True)
class Traced:
    """What a model opened.

    copies: the local copy of each URI.  origins: the local folders that the copies came from.
    programs: command lines of the programs that it started, whose own file accesses cannot be traced.
    settings: the files of settings on this machine that it read and that are not only defaults.
    prediction: what it predicted for its example, as tagged JSON; None if there is no example or no JSON for it.
    """

    copies: Mapping[str, Path]
    origins: tuple[Path, ...]
    programs: tuple[str, ...]
    settings: tuple[str, ...]
    prediction: str | None


def trace(model: Path, vendored: Mapping[str, Path], work: Path, *, source: str, timeout: float = TIMEOUT) -> Traced:
    """Load the model in the folder `model` in a child process and predict its example.

    Runs the model's code, so the caller must check trust first.
    vendored: URIs that are already vendored.  work: a new folder for the copies.  source: names the model in errors.
    Raises NotSelfContained (it opens something that a bundle cannot contain), ModelInvalid (it does not load in time).
    """
    before = inventory(model)
    task: dict[str, object] = {"model": str(model), "source": source, "work": str(work)}
    task |= {"vendored": {uri: str(path) for uri, path in vendored.items()}}
    result = run_child("likewise.builder.trace", task, work, environment=_environment(), timeout=timeout)
    changed = sorted(name for name, _ in before.items() ^ inventory(model).items())
    if outside := [*result["outside"], *(f"modifies its own file {name}" for name in changed[:1])]:
        raise _not_self_contained(outside)
    copies = {uri: Path(path) for uri, path in result["copies"].items()}
    origins, programs, settings = (tuple(result[name]) for name in ("origins", "programs", "settings"))
    return Traced(copies, tuple(map(Path, origins)), programs, settings, result["prediction"])


def distinct(copies: Mapping[str, Path], vendored: Mapping[str, Path]) -> dict[str, Path]:
    """The outermost `copies` that are not `vendored` yet, by URI without secrets.

    Raises NotSelfContained if two URIs that differ only in what is removed have different contents.
    """
    opened = outermost(copies)
    kept = outermost({normal(uri): path for uri, path in {**opened, **vendored}.items()})
    if any(normal(uri) != uri for uri in opened):
        for uri, path in opened.items():
            other = lookup(kept, uri)
            if other is None or not same_content(other, path):
                raise ambiguous(normal(uri))
    return {uri: path for uri, path in kept.items() if uri not in vendored}


def ambiguous(uri: str) -> NotSelfContained:
    """The error for a reference that a bundle cannot identify, because secrets are not stored."""
    return NotSelfContained(
        f"{uri} has different contents with different user information, query or fragment, which a bundle does not "
        "store because they may be secret",
        remedy="make both available at different paths, and log the model again with these",
    )


def outermost(copies: Mapping[str, Path]) -> dict[str, Path]:
    """`copies` without the URIs that are below another one."""
    return {uri: path for uri, path in copies.items() if not any(uri.startswith(base + "/") for base in copies)}


_LOGGING = frozenset({"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"})
"""Where a process logs to, which MLflow looks up in the store when it loads an agent: the model does not need it."""


def _environment() -> dict[str, str]:
    mlflow = need("mlflow", extra="mlflow")
    stores = {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri()}
    own = {name: value for name, value in os.environ.items() if name not in _LOGGING}
    return {**MLFLOW_SETTINGS, **own, **stores}


_REMEDIES = {
    "opens": LOG_FILES,
    "starts": LOG_FILES,
    "connects": "download what it needs when you log the model, and log that with it (artifacts=…)",
    "calls": "let it open what it needs by a URI (runs:/…, models:/name@alias)",
    "modifies": "let it write to a folder of tempfile.mkdtemp()",
}


def _not_self_contained(outside: list[str]) -> NotSelfContained:
    shown = "; ".join(outside[:5]) + (f"; and {len(outside) - 5} more" if len(outside) > 5 else "")
    remedies = dict.fromkeys(_REMEDIES[access.partition(" ")[0]] for access in outside)
    return NotSelfContained(
        f"while loading, the model {shown}: a bundle cannot contain that", remedy=f"{'; '.join(remedies)}; log it again"
    )


# --- in the child -----------------------------------------------------------------------------------------------------


class _Recorder:
    """Vendors the URIs that the model opens, and records its other accesses."""

    def __init__(self, model: Path, vendored: Mapping[str, Path], work: Path) -> None:
        own = (model, work, *vendored.values())
        self.copies: dict[str, Path] = {}
        self.origins: list[Path] = []
        self.outside: list[str] = []
        self.programs: list[str] = []
        self.settings: list[str] = []
        self.vendored = VendoredFiles(vendored, own=own, fetch=self._fetch)
        self.watch = AuditWatch(
            self._record_access,
            own=own,
            everywhere=True,
            on_program=self.programs.append,
            on_setting=self.settings.append,
        )
        self._folder = work / "copies"

    def _fetch(self, uri: str, open_real: Any, inner: str) -> Path:
        target = self._folder / str(len(self.copies)) / plain_name(normal(uri))
        try:
            with self.watch.paused(), mapped(uri):
                self.origins += fetch(open_real(), inner, target)
        except LikewiseError as error:
            raise as_mlflow_error(error) from error
        self.copies[uri] = self.vendored.paths[uri] = target
        return target

    def _record_access(self, access: str) -> None:
        if access not in self.outside:
            self.outside.append(access)


def _record(task: Task, _: Path) -> dict[str, object]:
    model, work = Path(task["model"]), Path(task["work"])
    vendored = {uri: Path(path) for uri, path in task["vendored"].items()}
    need("mlflow.pyfunc", extra="mlflow")  # imported before watching: its own file accesses are not the model's
    example = read_example(model)
    recorder = _Recorder(model, vendored, work)
    restrict_process(recorder.vendored)
    recorder.watch.start()
    prediction = None
    try:
        loaded = load_pyfunc(model, recorder.vendored, task["source"])
        if example is not None:
            try:
                prediction = _encoded(predict_example(loaded, example))
            except Exception as error:
                raise likewise_cause(error) or _fails_on_example(error) from error
    except Exception:
        if not recorder.vendored.refused:  # else that is the reason, reported with everything else that is outside
            raise
    with recorder.watch.paused():
        return {
            "copies": {uri: str(path) for uri, path in distinct(recorder.copies, vendored).items()},
            "origins": [str(path) for path in recorder.origins],
            "outside": [*recorder.outside, *dict.fromkeys(recorder.vendored.refused)],
            "programs": list(dict.fromkeys(recorder.programs)),
            "settings": list(filter(None, map(described, dict.fromkeys(recorder.settings)))),
            "prediction": prediction,
        }


def _encoded(prediction: Any) -> str | None:
    try:
        return tagged_json.encode(plain(prediction))
    except (LikewiseError, TypeError, ValueError):  # an output that no target can return: the proof reports it
        return None


def _fails_on_example(error: Exception) -> ModelInvalid:
    return ModelInvalid(
        f"the model loads, but fails on its input example: {type(error).__name__}: {redacted(str(error))[:1000]}",
        remedy="fix the model, or log it with an example that it accepts",
    )


if __name__ == "__main__":  # python -m likewise.builder.trace TASK RESULT
    run_task(_record, *sys.argv[1:])
