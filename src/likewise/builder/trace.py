"""Which models and files does a pipeline open?  Load it once in a child, fetch what it asks for, note what it hides.

What is caught: everything that goes through MLflow's artifact API, by any URI scheme, `download_artifacts(run_id=…)`
and `get_run(…).info.artifact_uri` too.  What cannot be carried is named and refused: other questions to the tracking
store, plain files outside the model, databases, the network.  What is not seen: files that a compiled library opens
without Python's knowledge, and what the pipeline opens only for inputs unlike its example.
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
from likewise.builder.resolve import MANNERS, fetch, plain_name
from likewise.bundles.folder import inventory
from likewise.bundles.references import normal
from likewise.core.errors import LikewiseError, ModelInvalid, NotSelfContained
from likewise.core.extras import need
from likewise.engine.child import Task, carry_out, run_child
from likewise.engine.example import read_example
from likewise.engine.pyfunc import load_pyfunc, model_input
from likewise.engine.vendored import Vendored, as_mlflow, named_cause, own_process

TIMEOUT = 600.0  # seconds, downloads included


@dataclass(frozen=True)
class Traced:
    """What a load opened: URI to copy, and the local folders that the copies came from.

    programs: the command lines that it started, of which nobody sees what they open.
    """

    copies: Mapping[str, Path]
    origins: tuple[Path, ...]
    programs: tuple[str, ...]


def trace(model: Path, held: Mapping[str, Path], work: Path, *, timeout: float = TIMEOUT) -> Traced:
    """Load the model in the folder `model` in a child and predict its example; runs its code, so ask for trust first.

    held: URIs that are vendored already.  work: a new folder for the copies.
    Raises NotSelfContained (it opens what no bundle can carry), ModelInvalid (it does not load, or not in time).
    """
    before = inventory(model)
    task = {"model": str(model), "held": {uri: str(path) for uri, path in held.items()}, "work": str(work)}
    result = run_child("likewise.builder.trace", task, work, environment=_environment(), timeout=timeout)
    if outside := result["outside"]:
        raise _not_carried(outside)
    if changed := sorted(name for name, _ in before.items() ^ inventory(model).items()):
        raise _not_carried([f"changes its own file {changed[0]}"])
    copies = {uri: Path(path) for uri, path in result["copies"].items()}
    return Traced(outermost(copies), tuple(map(Path, result["origins"])), tuple(result["programs"]))


def outermost(copies: Mapping[str, Path]) -> dict[str, Path]:
    """Without the URIs that lie under another one."""
    return {uri: path for uri, path in copies.items() if not any(uri.startswith(base + "/") for base in copies)}


def _environment() -> dict[str, str]:
    mlflow = need("mlflow", extra="mlflow")
    stores = {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_REGISTRY_URI": mlflow.get_registry_uri()}
    return {**MANNERS, **os.environ, **stores}


def _not_carried(outside: list[str]) -> NotSelfContained:
    shown = "; ".join(outside[:5]) + (f"; and {len(outside) - 5} more" if len(outside) > 5 else "")
    return NotSelfContained(
        f"while it loads, the model {shown}: no bundle can carry that",
        remedy="log such files with the model (artifacts=…), or let it open them through MLflow by a URI "
        "(mlflow.artifacts.download_artifacts), which is vendored",
    )


# --- in the child -----------------------------------------------------------------------------------------------------


class _Recorder:
    """Fetches what is asked for, notes the rest."""

    def __init__(self, model: Path, held: Mapping[str, Path], work: Path) -> None:
        own = (model, work, *held.values())
        self.copies: dict[str, Path] = {}
        self.origins: list[Path] = []
        self.outside: list[str] = []
        self.programs: list[str] = []
        self.vendored = Vendored(held, own=own, fetch=self._fetch)
        self.watch = AuditWatch(self._note, own=own, everywhere=True, started=self.programs.append)
        self._folder = work / "copies"

    def _fetch(self, uri: str, open_real: Any, inner: str) -> Path:
        target = self._folder / str(len(self.copies)) / plain_name(uri)
        try:
            with self.watch.paused(), mapped(uri):
                self.origins += fetch(open_real(), inner, target)
        except LikewiseError as error:
            raise as_mlflow(error) from error
        self.copies[uri] = self.vendored.paths[uri] = target
        return target

    def _note(self, touch: str) -> None:
        if touch not in self.outside:
            self.outside.append(touch)


def _record(task: Task, _: Path) -> dict[str, object]:
    model, work = Path(task["model"]), Path(task["work"])
    held = {normal(uri): Path(path) for uri, path in task["held"].items()}
    need("mlflow.pyfunc", extra="mlflow")  # what MLflow itself opens is not the model's doing
    example = read_example(model)
    recorder = _Recorder(model, held, work)
    own_process(recorder.vendored)
    recorder.watch.start()
    loaded = load_pyfunc(model, recorder.vendored)
    if example is not None:
        try:
            loaded.predict(model_input(loaded.metadata, example.table), params=dict(example.params) or None)
        except Exception as error:
            raise named_cause(error) or _fails_on_example(error) from error
    with recorder.watch.paused():
        return {
            "copies": {uri: str(path) for uri, path in recorder.copies.items()},
            "origins": [str(path) for path in recorder.origins],
            "outside": [*recorder.outside, *dict.fromkeys(recorder.vendored.refused)],
            "programs": list(dict.fromkeys(recorder.programs)),
        }


def _fails_on_example(error: Exception) -> ModelInvalid:
    return ModelInvalid(
        f"the model loads, but fails on its own input example: {type(error).__name__}: {str(error)[:1000]}",
        remedy="mend the model, or log it with an example that it takes",
    )


if __name__ == "__main__":  # python -m likewise.builder.trace TASK RESULT
    carry_out(_record, *sys.argv[1:])
