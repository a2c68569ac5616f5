"""Copies the model at an MLflow model URI to disk, without running its code; fails within seconds if unreachable."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from likewise.builder.failures import mapped
from likewise.bundles.folder import inventory, regular_files
from likewise.bundles.references import local_path
from likewise.bundles.trust import STORELESS
from likewise.core.digests import sha256_file
from likewise.core.errors import ModelNotFound, StoreUnreachable, UnsafeArchive, WrongUsage
from likewise.core.extras import need
from likewise.core.proxies import proxy_for
from likewise.core.uris import is_bucket, without_secrets
from likewise.engine.vendored import real_stores

PROBE_SECONDS = 5.0
STORED_BY_MLFLOW = "registered_model_meta"
MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_DEFAULT_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


@dataclass(frozen=True)
class Resolved:
    """A downloaded model.

    resolved: its URI, with an alias, stage or `latest` replaced by a version, and a path made absolute.
    origins: local folders that it was copied from.
    """

    resolved: str
    origins: tuple[Path, ...]


def resolve(uri: str, folder: Path) -> Resolved:
    """Copy the model at `uri` to the new path `folder`.

    Raises ModelNotFound (no such run, version, alias or path), StoreUnreachable (within seconds), UnsafeArchive (it
    contains a link or a special file), MissingExtra (boto3 for s3, …), WrongUsage (not a valid model URI).
    """
    if (path := local_path(uri)) is not None:
        if not path.exists():
            raise ModelNotFound(f"there is no model at {path}", remedy="check the path, or use a model URI")
        path = path.resolve()  # once: what is copied is what `resolved` names, also if a link changes meanwhile
    if urlparse(uri).scheme == "s3" and not is_bucket(urlparse(uri).netloc):
        raise WrongUsage(
            f"{without_secrets(uri)} is given with credentials, or without a bucket",
            remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use ~/.aws/credentials",
        )
    with limited_retries(), mapped(uri), real_stores():
        probe(uri)
        root, inner = (str(path.parent), path.name) if path is not None else _split(uri)
        open_repository = need("mlflow.store.artifact.artifact_repository_registry", extra="mlflow")
        repository = open_repository.get_artifact_repository(root)
        origins = fetch(repository, inner, folder)
        return Resolved(str(path) if path is not None else _resolved(uri, repository), origins)


def fetch(repository: Any, inner: str, target: Path) -> tuple[Path, ...]:
    """Copy `inner` of MLflow's `repository` to the new path `target`; returns the local folders it was copied from."""
    folders = [
        Path(leaf.artifact_dir, path) for leaf, path in _leaves(repository, inner) if hasattr(leaf, "artifact_dir")
    ]
    origins = tuple(p for p in folders if p.exists())
    for origin in origins:  # MLflow follows links, which Likewise rejects
        _only_regular(origin)
    target.parent.mkdir(parents=True, exist_ok=True)
    download = target.with_name(target.name + ".download")
    download.mkdir()
    try:
        _download(repository, inner, download).rename(target)
    finally:
        shutil.rmtree(download, ignore_errors=True)
    _only_regular(target)
    clean(target)
    return origins


def same_content(one: Path, other: Path) -> bool:
    """Whether two files are equal, or two folders contain equal files."""
    if one.is_dir() or other.is_dir():
        return one == other or (one.is_dir() and other.is_dir() and inventory(one) == inventory(other))
    return one == other or sha256_file(one) == sha256_file(other)


def plain_name(uri: str) -> str:
    """A file name for the copy of `uri`: its last part with its suffix, special characters replaced."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", uri.rstrip("/").rpartition("/")[2]).strip(".-")[-80:] or "root"


def clean(folder: Path) -> None:
    """Remove files that MLflow and Python add to a model's folder, so that the digest does not depend on them."""
    if not folder.is_dir():
        return
    (folder / STORED_BY_MLFLOW).unlink(missing_ok=True)
    for cache in list(folder.rglob("__pycache__")):
        shutil.rmtree(cache)


@contextmanager
def limited_retries() -> Iterator[None]:
    """Let MLflow's client give up after seconds and show no progress bars, unless the user has configured it."""
    added = {name: value for name, value in MLFLOW_SETTINGS.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def probe(uri: str) -> None:
    """Raise StoreUnreachable unless the store of `uri` can be reached; MLflow itself would retry for minutes."""
    parts = urlparse(uri)
    if parts.scheme in ("http", "https") or (parts.scheme == "mlflow-artifacts" and parts.netloc):
        _probe_server(uri if parts.scheme != "mlflow-artifacts" else f"http://{parts.netloc}")
    if parts.scheme not in STORELESS:
        return
    mlflow = need("mlflow", extra="mlflow")
    for store in {mlflow.get_tracking_uri(), mlflow.get_registry_uri()}:
        scheme = urlparse(store).scheme
        if scheme.partition("+")[0] == "sqlite":
            _probe_file(store)
        elif scheme.partition("+")[0] in _DEFAULT_PORTS:
            _probe_server(store)


def sqlite_file(store: str) -> Path | None:
    """The database file of a `sqlite:///…` store; None for any other store."""
    head, _, path = store.partition(":///")
    return Path(unquote(path.partition("?")[0])) if head.partition("+")[0] == "sqlite" and path else None


def _probe_file(store: str) -> None:
    path = sqlite_file(store)
    if path is not None and not path.is_file():  # MLflow would create an empty one
        raise StoreUnreachable(
            f"there is no tracking database at {path}",
            remedy="set MLFLOW_TRACKING_URI to the store that the model was logged to",
        )


def _probe_server(store: str) -> None:
    parts = urlparse(without_secrets(store))
    if parts.hostname is None or proxy_for(store):
        return
    port = parts.port or _DEFAULT_PORTS[parts.scheme.partition("+")[0]]
    try:
        socket.create_connection((parts.hostname, port), timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise StoreUnreachable(
            f"cannot connect to {parts.scheme}://{parts.hostname}:{port}: {error}",
            remedy="start the tracking server, or set MLFLOW_TRACKING_URI to the store that the model was logged to",
        ) from error


def _split(uri: str) -> tuple[str, str]:
    """MLflow's repository URI and the path in it. Handles a run's artifact root, which MLflow itself splits wrongly."""
    if urlparse(uri).scheme == "runs" and uri.strip("/").count("/") == 1:
        return uri.rstrip("/"), ""
    tools = need("mlflow.tracking.artifact_utils", extra="mlflow")
    root, inner = tools._get_root_uri_and_artifact_path(uri.rstrip("/"))
    return str(root), str(inner)


def _resolved(uri: str, repository: Any) -> str:
    """The URI with its alias, stage or `latest` replaced; the part that names another registry is kept."""
    name, version = getattr(repository, "model_name", None), getattr(repository, "model_version", None)
    registry = f"//{parts.netloc}" if (parts := urlparse(uri)).netloc else ""
    return f"models:{registry}/{name}/{version}" if name and version else uri


def _leaves(repository: Any, inner: str) -> Iterator[tuple[Any, str]]:
    """The repositories that MLflow would copy a `runs:/` or `models:/` URI from, and the path in each."""
    if not hasattr(repository, "repo"):
        yield repository, inner
        return
    yield from _leaves(repository.repo, inner)
    if hasattr(repository, "parse_runs_uri"):
        full = "/".join(part for part in (repository.artifact_uri.rstrip("/"), inner) if part)
        run_id, path = repository.parse_runs_uri(full)
        name, _, rest = (path or "").partition("/")
        model = repository._get_logged_model_artifact_repo(run_id=run_id, name=name) if name else None
        if model is not None:
            yield from _leaves(model, rest)


def _download(repository: Any, inner: str, target: Path) -> Path:
    try:
        return Path(repository.download_artifacts(inner, str(target)))
    except Exception:
        # A run's repository hides why its parts fail (no credentials, disk full): use each part directly to find out.
        leaves = list(_leaves(repository, inner))
        for leaf, path in leaves:
            if leaf.list_artifacts(path or None):
                leaf.download_artifacts(path, str(target))
        if not any(_lists(leaf, path) for leaf, path in leaves):
            raise FileNotFoundError(f"the store has no artifact {inner}") from None
        raise


def _lists(repository: Any, path: str) -> bool:
    """Whether the parent folder of `path` lists it; an empty path is the repository itself and always exists."""
    folder = path.rpartition("/")[0]
    return not path or any(entry.path.strip("/") == path for entry in repository.list_artifacts(folder or None))


def _only_regular(path: Path) -> None:
    if path.is_dir():
        for _ in regular_files(path):
            pass
    elif path.is_symlink() or not path.is_file():
        raise UnsafeArchive(
            f"{path} is a link or a special file; only regular files and folders are allowed",
            remedy="replace it with the file that it points to, and log the model again",
        )
