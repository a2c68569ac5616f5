"""What a bundle vendors, answered where MLflow would ask a store.

A pipeline opens `runs:/…`, `models:/name@alias`, `s3://…` while it loads.  Inside a bundle those are folders.  MLflow
has one door to every artifact (`get_artifact_repository`) and one to each store (`get_store`); both are wrapped here,
once a process, and pass everything through that no bundle concerns.

Two manners: a `Vendored` that is `installed` answers its own URIs anywhere in the process and leaves all others to
MLflow; `inside` one (a model of the bundle loads or predicts) nothing else answers, and what is missing is named.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

from likewise.bundles.references import local_path, lookup, normal
from likewise.core.errors import LikewiseError, ReferenceMissing
from likewise.core.extras import need

OpenReal = Callable[[], Any]
Fetch = Callable[[str, OpenReal, str], Path]


class Vendored:
    """URIs and where their copies lie.

    paths: vendored URI to file or folder.  own: folders whose files are the model's own business.
    fetch: `fetch(uri, open_real, inner)` vendors what is not there yet, `inner` of MLflow's repository, for tracing;
    None where what is missing stays missing.  refused: questions to the stores that nothing vendored answers.
    """

    def __init__(self, paths: Mapping[str, Path], own: tuple[Path, ...] = (), fetch: Fetch | None = None) -> None:
        self.paths = {normal(uri): path for uri, path in paths.items()}
        self.own = tuple(path.resolve() for path in own)
        self.fetch = fetch
        self.refused: list[str] = []

    def find(self, uri: str) -> Path | None:
        """The copy of `uri`, by the longest vendored URI that it is or lies under; None where there is none."""
        return lookup(self.paths, uri)

    def get(self, uri: str, open_real: OpenReal, inner: str) -> Path | None:
        """As `find`, fetched where that is possible; None leaves the model's own file to MLflow; else "not there".

        A file elsewhere on this machine is "not there" too, though it is: on another machine nothing would answer.
        """
        found = self.find(uri)
        if found is not None or self._is_own(uri):
            return found
        if self.fetch is not None:
            with mlflows_own():
                return self.fetch(normal(uri), open_real, inner)
        raise _undeclared(f"opens {uri}", uri)

    def concerns(self, uri: str) -> bool:
        """Whether anything at, above or under `uri` is vendored."""
        asked = normal(uri) + "/"
        return any(asked.startswith(base + "/") or (base + "/").startswith(asked) for base in self.paths)

    def _is_own(self, uri: str) -> bool:
        """Whether it is a file of the model's, or one that it has made itself in the temporary folder."""
        path = local_path(uri)
        own = (*self.own, Path(tempfile.gettempdir()).resolve())
        return path is not None and any(path.resolve().is_relative_to(folder) for folder in own)


def as_mlflow(error: LikewiseError) -> Exception:
    """MLflow's "does not exist", which a pipeline may expect and catch, caused by `error`."""
    exceptions = need("mlflow.exceptions", extra="mlflow")
    raised: Exception = exceptions.MlflowException(error.cause, error_code=exceptions.RESOURCE_DOES_NOT_EXIST)
    raised.__cause__ = error
    return raised


def _undeclared(what: str, uri: str) -> Exception:
    return as_mlflow(
        ReferenceMissing(
            f"the pipeline {what}, which the bundle does not carry",
            remedy=f"bundle the model again with --reference {uri}",
        )
    )


def named_cause(error: BaseException) -> LikewiseError | None:
    """The error of ours that `error` stems from, through whatever a library has wrapped around it."""
    return next((link for link in causes(error) if isinstance(link, LikewiseError)), None)


def causes(error: BaseException) -> Iterator[BaseException]:
    """`error`, what it was raised from or beside, and so on to the first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        link = link.__cause__ or link.__context__


# --- who answers ------------------------------------------------------------------------------------------------------

_installed: list[Vendored] = []
_whole_process: Vendored | None = None
_scope: ContextVar[Vendored | None] = ContextVar("vendored_scope", default=None)
_mlflows_own: ContextVar[bool] = ContextVar("vendored_passing", default=False)
_patch_lock = threading.Lock()
_patched = False


def install(vendored: Vendored) -> None:
    """Answer its URIs everywhere in this process, until `uninstall`; all others stay MLflow's."""
    _patch()
    _installed.append(vendored)


def uninstall(vendored: Vendored) -> None:
    """Take an installed one out; nothing happens where it is out already."""
    if vendored in _installed:
        _installed.remove(vendored)


def own_process(vendored: Vendored) -> None:
    """Nothing but `vendored` answers in this whole process, threads included: for a child that has no other use."""
    global _whole_process
    _patch()
    _whole_process = vendored


@contextmanager
def inside(vendored: Vendored) -> Iterator[None]:
    """Nothing but `vendored` answers in this context: a model of the bundle is loading or predicting."""
    token = _scope.set(vendored)
    try:
        yield
    finally:
        _scope.reset(token)


@contextmanager
def mlflows_own() -> Iterator[None]:
    """MLflow's real stores answer in this context: something is being fetched."""
    token = _mlflows_own.set(True)
    try:
        yield
    finally:
        _mlflows_own.reset(token)


def _strict() -> Vendored | None:
    return None if _mlflows_own.get() else _scope.get() or _whole_process


def _concerned(uri: str) -> bool:
    if _mlflows_own.get():
        return False
    return _strict() is not None or any(v.concerns(uri) for v in _installed)


def _lookup(uri: str, open_real: OpenReal, inner: str) -> Path | None:
    if (strict := _strict()) is not None:
        return strict.get(uri, open_real, inner)
    return next((path for v in reversed(_installed) if (path := v.find(uri)) is not None), None)


# --- the doors --------------------------------------------------------------------------------------------------------


def _patch() -> None:
    global _patched
    with _patch_lock:
        if _patched:
            return
        artifacts = need("mlflow.store.artifact.artifact_repository_registry", extra="mlflow")
        tracking = need("mlflow.tracking._tracking_service.utils", extra="mlflow")
        registry = need("mlflow.tracking._model_registry.utils", extra="mlflow")
        door = artifacts._artifact_repository_registry
        door.get_artifact_repository = partial(_repository, door.get_artifact_repository)
        for store in (tracking._tracking_store_registry, registry._get_store_registry()):
            store.get_store = partial(_store, store.get_store)
        for kind in (artifacts.RunsArtifactRepository, artifacts.ModelsArtifactRepository):
            kind.get_underlying_uri = staticmethod(partial(_underlying_uri, kind.get_underlying_uri))
        _patched = True


def _repository(real: Callable[..., Any], artifact_uri: str, *args: Any, **kwargs: Any) -> Any:
    open_real = partial(real, artifact_uri, *args, **kwargs)
    return _Repository(str(artifact_uri), open_real) if _concerned(str(artifact_uri)) else open_real()


def _store(real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    strict = _strict()
    return real(*args, **kwargs) if strict is None else _Store(strict)


def _underlying_uri(real: Callable[..., str], uri: str, *args: Any, **kwargs: Any) -> str:
    # A vendored URI is as underlying as it gets: MLflow asks for files under it, and those are answered.
    return uri if _concerned(uri) else real(uri, *args, **kwargs)


class _Repository:
    """An artifact repository that looks among the vendored first; anything but reading is the real one's."""

    def __init__(self, uri: str, open_real: Callable[[], Any]) -> None:
        self.artifact_uri = uri
        self._open_real = open_real

    def download_artifacts(self, artifact_path: str | None = None, dst_path: str | None = None, **kwargs: Any) -> str:
        inner = artifact_path or ""
        found = _lookup(self._join(inner), self._open_real, inner)
        if found is None:
            with mlflows_own():
                return str(self._open_real().download_artifacts(artifact_path, dst_path, **kwargs))
        return str(found) if dst_path is None else str(_copy(found, Path(dst_path, inner)))

    def list_artifacts(self, path: str | None = None) -> list[Any]:
        inner = (path or "").strip("/")
        found = _lookup(self._join(inner), self._open_real, inner)
        if found is None:
            with mlflows_own():
                return list(self._open_real().list_artifacts(path))
        file_info = need("mlflow.entities", extra="mlflow").FileInfo
        held = sorted(found.iterdir()) if found.is_dir() else []
        return [file_info(_under(inner, p.name), p.is_dir(), None if p.is_dir() else p.stat().st_size) for p in held]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        with mlflows_own():
            return getattr(self._open_real(), name)

    def _join(self, inner: str) -> str:
        return _under(self.artifact_uri.rstrip("/"), inner.strip("/"))


class _Store:
    """Stands in for the tracking store and the registry: knows the vendored runs' artifacts and nothing else."""

    def __init__(self, vendored: Vendored) -> None:
        self._vendored = vendored

    def get_run(self, run_id: str) -> Any:
        uri = f"runs:/{run_id}"
        if self._vendored.fetch is None and not self._vendored.concerns(uri):
            raise _undeclared(f"asks the tracking store for the run {run_id}", uri)
        return _run(self._vendored, run_id)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(_refuse, self._vendored, name)


def _refuse(vendored: Vendored, name: str, *args: Any, **kwargs: Any) -> Any:
    shown = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])[:200]
    vendored.refused.append(f"asks the tracking store or the model registry: {name}({shown})")
    raise as_mlflow(
        ReferenceMissing(
            f"the pipeline {vendored.refused[-1]}, which no bundle can answer",
            remedy="let it open what it needs by a URI (runs:/…, models:/name@alias), and log it again",
        )
    )


def _run(vendored: Vendored, run_id: str) -> Any:
    """A run of which only the artifacts are known: its artifact root is `runs:/ID`, which is vendored or is missed."""
    entities = need("mlflow.entities", extra="mlflow")

    class VendoredRun(entities.Run):  # type: ignore[misc, name-defined]
        @property
        def data(self) -> Any:
            return _refuse(vendored, "get_run", run_id, part="data")

    info = entities.RunInfo(run_id, "0", "", "FINISHED", 0, 0, "active", artifact_uri=f"runs:/{run_id}")
    return VendoredRun(info, None)


def _copy(found: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    if found.is_dir():
        shutil.copytree(found, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(found, target)
    return target


def _under(root: str, name: str) -> str:
    return f"{root}/{name}" if root and name else root or name
