"""Redirects MLflow's access to artifact stores to the vendored files of a bundle.

A pipeline opens `runs:/…`, `models:/name@alias`, `s3://…` while it loads.  In a bundle, those are
folders with copies.  MLflow opens every artifact with `get_artifact_repository` and every store with `get_store`; this
module wraps both, once per process, and passes through all calls that do not concern a bundle.

There are two modes.  `install` redirects the vendored URIs in the whole process and leaves all others to MLflow.
`restricted_to`, while a model of the bundle loads or predicts, allows only vendored URIs: any other is an error.
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
from urllib.parse import urlsplit

from likewise.bundles.references import local_path, lookup, normal, spelled
from likewise.core.errors import LikewiseError, ReferenceMissing
from likewise.core.extras import need
from likewise.core.uris import redacted

OpenReal = Callable[[], Any]
Fetch = Callable[[str, OpenReal, str], Path]


class VendoredFiles:
    """Maps URIs to their local copies.

    paths: the file or folder of each vendored URI.  own: folders that the model may read directly.
    fetch: for tracing, `fetch(uri, open_real, inner)` copies a missing URI into the bundle (the path `inner` of the
    repository that `open_real()` returns); None if a missing URI is an error.  While tracing, URIs that differ only in
    their user information, query or fragment are different ones, because their contents may differ.
    refused: descriptions of requests to the stores that were rejected.
    """

    def __init__(self, paths: Mapping[str, Path], own: tuple[Path, ...] = (), fetch: Fetch | None = None) -> None:
        self._form = normal if fetch is None else spelled
        self.paths = {self._form(uri): path for uri, path in paths.items()}
        self.own = tuple(path.resolve() for path in own)
        self.fetch = fetch
        self.refused: list[str] = []

    def find(self, uri: str) -> Path | None:
        """The copy of `uri`, below the longest vendored URI that equals it or is its parent; None without one."""
        return lookup(self.paths, uri, self._form)

    def get(self, uri: str, open_real: OpenReal, inner: str) -> Path | None:
        """Like `find`, but fetches a missing URI if possible; None means that the model's own file is left to MLflow.

        Otherwise raises MLflow's "does not exist", also for an existing file elsewhere on this machine, because it
        would not exist on another machine.
        """
        path = self.find(uri)
        if path is not None or self._is_own(uri):
            return path
        if self.fetch is not None:
            with real_stores():
                return self.fetch(spelled(uri), open_real, inner)
        raise _undeclared(f"opens {uri}", uri)

    def concerns(self, uri: str) -> bool:
        """Whether `uri`, a parent of it or anything below it is vendored."""
        prefix = self._form(uri) + "/"
        return any(prefix.startswith(base + "/") or (base + "/").startswith(prefix) for base in self.paths)

    def _is_own(self, uri: str) -> bool:
        """Whether `uri` is one of the model's own files, or in the temporary folder."""
        path = local_path(uri)
        own = (*self.own, Path(tempfile.gettempdir()).resolve())
        return path is not None and any(path.resolve().is_relative_to(folder) for folder in own)


def as_mlflow_error(error: LikewiseError) -> Exception:
    """MLflow's "does not exist" exception, which a pipeline may expect and catch, caused by `error`."""
    exceptions = need("mlflow.exceptions", extra="mlflow")
    raised: Exception = exceptions.MlflowException(error.cause, error_code=exceptions.RESOURCE_DOES_NOT_EXIST)
    raised.__cause__ = error
    return raised


def _undeclared(what: str, uri: str) -> Exception:
    return as_mlflow_error(
        ReferenceMissing(
            f"the pipeline {what}, which the bundle does not contain",
            remedy=f"bundle the model again with --reference {uri}",
        )
    )


def likewise_cause(error: BaseException) -> LikewiseError | None:
    """The first LikewiseError in the exception chain of `error`, or None."""
    return next((link for link in exception_chain(error) if isinstance(link, LikewiseError)), None)


def exception_chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and, recursively, its cause or context."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        link = link.__cause__ or link.__context__


# --- active redirections ----------------------------------------------------------------------------------------------

_installed: list[VendoredFiles] = []
_process_scope: VendoredFiles | None = None
_context_scope: ContextVar[VendoredFiles | None] = ContextVar("vendored_scope", default=None)
_real_stores: ContextVar[bool] = ContextVar("vendored_real_stores", default=False)
_patch_lock = threading.Lock()
_patched = False


def install(vendored: VendoredFiles) -> None:
    """Redirect its URIs everywhere in this process until `uninstall`; MLflow handles all others."""
    _patch()
    _installed.append(vendored)


def uninstall(vendored: VendoredFiles) -> None:
    """Undo `install`; does nothing if it is not installed."""
    if vendored in _installed:
        _installed.remove(vendored)


def restrict_process(vendored: VendoredFiles) -> None:
    """Allow only `vendored` in this whole process, including all threads: for dedicated child processes."""
    global _process_scope
    _patch()
    _process_scope = vendored


@contextmanager
def restricted_to(vendored: VendoredFiles) -> Iterator[None]:
    """Allow only `vendored` in this context, in which a model of the bundle loads or predicts."""
    token = _context_scope.set(vendored)
    try:
        yield
    finally:
        _context_scope.reset(token)


@contextmanager
def real_stores() -> Iterator[None]:
    """Use MLflow's real stores in this context, to fetch something."""
    token = _real_stores.set(True)
    try:
        yield
    finally:
        _real_stores.reset(token)


def _restriction() -> VendoredFiles | None:
    return None if _real_stores.get() else _context_scope.get() or _process_scope


def _concerned(uri: str) -> bool:
    if _real_stores.get():
        return False
    return _restriction() is not None or any(v.concerns(uri) for v in _installed)


def _lookup(uri: str, open_real: OpenReal, inner: str) -> Path | None:
    if (restriction := _restriction()) is not None:
        return restriction.get(uri, open_real, inner)
    return next((path for v in reversed(_installed) if (path := v.find(uri)) is not None), None)


# --- MLflow's entry points --------------------------------------------------------------------------------------------


def _patch() -> None:
    global _patched
    with _patch_lock:
        if _patched:
            return
        artifacts = need("mlflow.store.artifact.artifact_repository_registry", extra="mlflow")
        tracking = need("mlflow.tracking._tracking_service.utils", extra="mlflow")
        registry = need("mlflow.tracking._model_registry.utils", extra="mlflow")
        repositories = artifacts._artifact_repository_registry
        repositories.get_artifact_repository = partial(_repository, repositories.get_artifact_repository)
        for store in (tracking._tracking_store_registry, registry._get_store_registry()):
            store.get_store = partial(_store, store.get_store)
        for kind in (artifacts.RunsArtifactRepository, artifacts.ModelsArtifactRepository):
            kind.get_underlying_uri = staticmethod(partial(_underlying_uri, kind.get_underlying_uri))
        _patched = True


def _repository(real: Callable[..., Any], artifact_uri: str, *args: Any, **kwargs: Any) -> Any:
    open_real = partial(real, artifact_uri, *args, **kwargs)
    return _Repository(str(artifact_uri), open_real) if _concerned(str(artifact_uri)) else open_real()


def _store(real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    restriction = _restriction()
    return real(*args, **kwargs) if restriction is None else _Store(restriction)


def _underlying_uri(real: Callable[..., str], uri: str, *args: Any, **kwargs: Any) -> str:
    # A vendored URI needs no resolution: MLflow opens files below it, which are redirected.
    return uri if _concerned(uri) else real(uri, *args, **kwargs)


class _Repository:
    """An artifact repository that reads vendored files first; the real repository handles everything else."""

    def __init__(self, uri: str, open_real: Callable[[], Any]) -> None:
        self.artifact_uri = uri
        self._open_real = open_real

    def download_artifacts(self, artifact_path: str | None = None, dst_path: str | None = None, **kwargs: Any) -> str:
        inner = artifact_path or ""
        path = _lookup(self._join(inner), self._open_real, inner)
        if path is None:
            with real_stores():
                return str(self._open_real().download_artifacts(artifact_path, dst_path, **kwargs))
        return str(path) if dst_path is None else str(_copy(path, Path(dst_path, inner)))

    def list_artifacts(self, path: str | None = None) -> list[Any]:
        inner = (path or "").strip("/")
        folder = _lookup(self._join(inner), self._open_real, inner)
        if folder is None:
            with real_stores():
                return list(self._open_real().list_artifacts(path))
        file_info = need("mlflow.entities", extra="mlflow").FileInfo
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        return [file_info(_under(inner, p.name), p.is_dir(), None if p.is_dir() else p.stat().st_size) for p in files]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        with real_stores():
            return getattr(self._open_real(), name)

    def _join(self, inner: str) -> str:
        parts = urlsplit(self.artifact_uri)
        if parts.netloc and (parts.query or parts.fragment):  # the path ends before them
            return parts._replace(path=_under(parts.path.rstrip("/"), inner.strip("/"))).geturl()
        return _under(self.artifact_uri.rstrip("/"), inner.strip("/"))


class _Store:
    """Replaces the tracking store and the model registry: only provides the artifacts of vendored runs."""

    def __init__(self, vendored: VendoredFiles) -> None:
        self._vendored = vendored

    def get_run(self, run_id: str) -> Any:
        uri = f"runs:/{run_id}"
        if self._vendored.fetch is None and not self._vendored.concerns(uri):
            raise _undeclared(f"requests the run {run_id} from the tracking store", uri)
        return _run(self._vendored, run_id)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(_refuse, self._vendored, name)


def _refuse(vendored: VendoredFiles, name: str, *args: Any, **kwargs: Any) -> Any:
    shown = redacted(", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]))[:200]
    vendored.refused.append(f"calls the tracking store or the model registry: {name}({shown})")
    raise as_mlflow_error(
        ReferenceMissing(
            f"the pipeline {vendored.refused[-1]}, which is not available in a bundle",
            remedy="let the pipeline open what it needs by a URI (runs:/…, models:/name@alias), and log it again",
        )
    )


def _run(vendored: VendoredFiles, run_id: str) -> Any:
    """A run of which only the artifacts are available, with the artifact root `runs:/ID`."""
    entities = need("mlflow.entities", extra="mlflow")

    class VendoredRun(entities.Run):  # type: ignore[misc, name-defined]
        @property
        def data(self) -> Any:
            return _refuse(vendored, "get_run", run_id, part="data")

    info = entities.RunInfo(run_id, "0", "", "FINISHED", 0, 0, "active", artifact_uri=f"runs:/{run_id}")
    return VendoredRun(info, None)


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)
    return target


def _under(root: str, name: str) -> str:
    return f"{root}/{name}" if root and name else root or name
