"""Which models may run their own code: none, unless the user has allowed it.

An MLflow pyfunc can run arbitrary code.  `--trust` allows it once; `likewise trust PREFIX-OR-DIGEST` permanently.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from platformdirs import user_config_path

from likewise.bundles.cache import cache_home
from likewise.bundles.format import MANIFEST, load_manifest
from likewise.bundles.open import Bundle
from likewise.bundles.references import local_path
from likewise.core.digests import PREFIX
from likewise.core.errors import CodeNotTrusted, LikewiseError, OutputRefused, WrongUsage
from likewise.core.private_files import changeable_by_others, own_folder, write_private
from likewise.core.uris import CONTAINERS, redacted, without_secrets, without_user

STORELESS = ("models", "runs", "mlflow-artifacts")  # schemes whose meaning depends on the configured store
VERSION = 2  # of the file; version 1 was a plain list, with model digests
BUCKETS = ("s3", "gs", *CONTAINERS)  # schemes whose host is a bucket, which one team owns, rather than a server
SHARED = ("/tmp", "/var/tmp", "/dev/shm", "/home", "/Users")  # noqa: S108  # refused as scopes, never written to

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class TrustEntry:
    """What the user trusts: a bundle's digest, or all URIs that start with `prefix`.

    store: for a prefix that names no store (`models:/…`, `runs:/…`), the store that was configured when it was added.
    """

    prefix: str
    store: str | None = None

    @property
    def counts(self) -> bool:
        """Whether the entry applies to the store that is configured now."""
        return self.store in (None, current_store())


def trust_file() -> Path:
    """The file with the entries: `trust.json` in `LIKEWISE_CONFIG_HOME`, or in the user's configuration folder."""
    return Path(os.environ.get("LIKEWISE_CONFIG_HOME") or user_config_path("likewise"), "trust.json")


def remembered() -> tuple[TrustEntry, ...]:
    """All entries, for every store, sorted; empty if the file does not exist.

    Raises WrongUsage if the file is invalid, or if another user may change it.
    """
    path = trust_file()
    try:
        document = json.loads(path.read_bytes())
        listed = document if isinstance(document, list) else document["entries"]
        # earlier versions did not remove passwords
        cleaned = (TrustEntry(without_user(e["prefix"]), e["store"] and redacted(e["store"])) for e in listed)
        entries = tuple(sorted(cleaned))
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError, KeyError) as error:
        raise WrongUsage(
            f"{path} is not a list of entries with prefix and store: {error}", remedy="fix or delete the file"
        ) from error
    if (part := changeable_by_others(path.resolve())) is not None:
        raise WrongUsage(
            f"{path} decides which code may run, and other users may change {part}",
            remedy=f"check the file, then run: chmod go-w {part}; or set LIKEWISE_CONFIG_HOME to another folder",
        )
    return _migrated(entries) if isinstance(document, list) else entries


def _migrated(entries: Sequence[TrustEntry]) -> tuple[TrustEntry, ...]:
    """Entries of a version without build digests, whose digests are those of models; saved with a message for each.

    A model digest is replaced by the build digest of this user's own bundle in the cache, if there is one.
    """
    kept = []
    for entry in entries:
        replacement = _build_in_cache(entry.prefix) if entry.prefix.startswith(PREFIX) else None
        if replacement is not None:
            logger.warning("the trusted model digest %s is now the build digest %s", entry.prefix, replacement)
        elif entry.prefix.startswith(PREFIX):
            logger.warning(
                "%s is no longer trusted: it is a model digest, which does not cover the environment; "
                "`likewise inspect` shows the build digest of a bundle, to trust instead",
                entry.prefix,
            )
        kept += [replace(entry, prefix=replacement or entry.prefix)]
    with suppress(OSError, OutputRefused):  # a folder that is only readable
        _save(kept)
    return tuple(sorted(kept))


def _build_in_cache(digest: str) -> str | None:
    manifest = cache_home() / "bundles" / digest.replace(":", "-") / MANIFEST
    try:
        cached = load_manifest(manifest.read_bytes())
    except (OSError, LikewiseError):
        return None
    return cached.build if cached.digest == digest and changeable_by_others(manifest) is None else None


def active_entries() -> tuple[str, ...]:
    """The prefixes and digests that apply to the store that is configured now."""
    return tuple(entry.prefix for entry in remembered() if entry.counts)


def remember(prefix: str, *, everything: bool = False) -> tuple[TrustEntry, ...]:
    """Trust a URI prefix (`models:/team-a/`, a folder) or a bundle's digest from now on.

    A prefix that names no store is trusted only in the store that is configured now.
    Raises WrongUsage for a path that does not exist, and for a prefix that is `too_wide` unless `everything` is set.
    """
    _check(prefix, everything)
    entry = TrustEntry(_normal(prefix), current_store() if urlsplit(prefix).scheme in STORELESS else None)
    return _save({*remembered(), entry})


def forget(prefix: str) -> tuple[TrustEntry, ...]:
    """Remove an entry, for every store; raises WrongUsage if there is none."""
    kept = [entry for entry in remembered() if entry.prefix not in (prefix, _normal(prefix))]
    if len(kept) == len(remembered()):
        raise WrongUsage(f"{prefix!r} is not trusted", remedy="list the entries with: likewise trust --list")
    return _save(kept)


def _save(entries: Iterable[TrustEntry]) -> tuple[TrustEntry, ...]:
    path = trust_file()
    own_folder(path.parent, remedy="set LIKEWISE_CONFIG_HOME to a folder that belongs to you and only you can write to")
    document = {"version": VERSION, "entries": [asdict(entry) for entry in sorted(entries)]}
    write_private(path, json.dumps(document, indent=2) + "\n")
    return remembered()


def too_wide(prefix: str) -> str | None:
    """What `prefix` covers if that is more than one team's models, such as `every model`; None for any other entry."""
    path, parts = local_path(prefix), urlsplit(prefix)
    if path is not None:
        return _too_wide(path.resolve())
    if parts.path.strip("/") or parts.scheme in BUCKETS:
        return None
    return f"everything on {parts.hostname}" if parts.hostname else f"everything that starts with {parts.scheme}:/"


def changeable(prefix: str) -> Path | None:
    """The first part of a path that another user may change or replace; None if there is none, or for other URIs."""
    path = local_path(prefix)
    return None if path is None else changeable_by_others(path.resolve())


def _too_wide(path: Path) -> str | None:
    """Folders for the files of all users, of all programs of a user, and their parents."""
    folders = {Path(each).resolve() for each in (*SHARED, tempfile.gettempdir(), Path("~").expanduser())}
    return f"everything below {path}" if any(folder.is_relative_to(path) for folder in folders) else None


def _check(prefix: str, everything: bool) -> None:
    try:
        parts = urlsplit(prefix)
    except ValueError as error:
        raise WrongUsage(f"{prefix!r} is not a valid URI: {error}", remedy="check the spelling") from error
    if prefix.startswith(PREFIX):
        if len(prefix) != len(PREFIX) + 64:
            raise WrongUsage(
                f"{prefix!r} is not a complete digest",
                remedy="pass all 64 digits, as shown by: likewise inspect MODEL",
            )
        return
    _check_names(prefix)
    if not everything and (scope := too_wide(prefix)) is not None:
        raise WrongUsage(
            f"{prefix!r} would trust {scope}",
            remedy=f"pass one model or one folder, such as {_narrower(parts.scheme)}; or, if any code in it may run, "
            "add --everything",
        )


def _check_names(prefix: str) -> None:
    """Raise WrongUsage for a prefix that covers nothing now: a typo, or what somebody else may create later."""
    path, parts = local_path(prefix), urlsplit(prefix)
    if not prefix or prefix != prefix.strip():
        raise WrongUsage(f"{prefix!r} is empty, or has spaces around it", remedy="pass models:/NAME/, or a folder")
    if without_secrets(_normal(prefix)) != _normal(prefix):
        raise WrongUsage(
            f"the URI {without_secrets(prefix)} is given with a query, a fragment or invalid user information",
            remedy="pass the URI without them; a model whose URI has a query needs --trust, or its build digest",
        )
    if _has_parent_part(_normal(prefix)):
        raise WrongUsage(f"{prefix!r} contains '..'", remedy="pass the resolved prefix")
    if path is not None and not os.path.exists(path):
        raise WrongUsage(
            f"{path.absolute()} does not exist, so anyone who creates it later would be trusted",
            remedy="check the spelling, or create it first; a registered model is written models:/NAME",
        )
    if path is None and parts.scheme not in (*STORELESS, "dbfs") and not parts.netloc:
        raise WrongUsage(f"{prefix!r} names no bucket or host", remedy=f"name one, such as {_narrower(parts.scheme)}")


def _narrower(scheme: str) -> str:
    """An example of a scope that is not too wide, for a remedy."""
    examples = {"": "/srv/models/team", "file": "/srv/models/team", "models": "models:/NAME/", "runs": "runs:/RUN/"}
    return examples.get(scheme, f"{scheme}:/FOLDER/" if scheme in (*STORELESS, "dbfs") else f"{scheme}://HOST/FOLDER/")


@dataclass(frozen=True)
class Trust:
    """What may run code in this call: everything (`allow`), or what matches the prefixes and digests in `entries`."""

    allow: bool = False
    entries: tuple[str, ...] = field(default_factory=active_entries)

    def allows(self, *, uri: str | None = None, digest: str | None = None, folder: Path | None = None) -> bool:
        """Whether code of the model named by `uri`, of the bundle with `digest`, or of the model in `folder`, may run.

        folder: absolute and without links, as it was when it was read.  It is not resolved again, because its owner
        may have replaced it with a link to a trusted folder.
        """
        if self.allow or (digest is not None and digest in self.entries):
            return True
        names = [*([] if uri is None else [_normal(uri)]), *([] if folder is None else [str(folder)])]
        return any(_covers(e, name) for e in self.entries if not e.startswith(PREFIX) for name in names)

    def require(
        self, *, uri: str | None = None, folder: Path | None = None, what: str = "the model", why: str | None = None
    ) -> None:
        """Raise CodeNotTrusted, which describes the two ways to allow the code, unless `allows`.

        why: what in the model's files may run code.
        """
        if not self.allows(uri=uri, folder=folder):
            raise not_trusted(what, str(folder or _normal(uri or "")), why)

    def allows_bundle(self, bundle: Bundle) -> bool:
        """Whether code of `bundle` may run, by its folder or its build digest.

        The manifest's own `source` is ignored: an untrusted bundle may claim any.
        """
        allowed = self.allows(folder=bundle.location.absolute(), digest=bundle.build)
        if not allowed and bundle.digest in self.entries:
            logger.warning("the list has the model digest %s; only build digests are trusted", bundle.digest)
        return allowed

    def require_for_mlflow(self, bundle: Bundle) -> None:
        """Raise CodeNotTrusted unless `allows_bundle`, for plain MLflow, which runs whatever a model's files name."""
        if not self.allows_bundle(bundle):
            raise CodeNotTrusted(
                f"plain MLflow would load the bundle {bundle.location} without checking what its files run, which has "
                "not been allowed",
                remedy=f"if you trust its author, {_allow(bundle.build)}",
            )


def not_trusted(what: str, entry: str, why: str | None = None) -> CodeNotTrusted:
    """The error for `what`, which needs its own code.  entry: what to add to the list, a build digest or a URI."""
    return CodeNotTrusted(
        f"{what} can only be loaded by running its own Python code, which has not been allowed"
        + (f": {redacted(why)}" if why else ""),
        remedy=f"if you trust its author, {_allow(entry)}",
    )


def _allow(entry: str) -> str:
    permanently = f", or allow it permanently: likewise trust {entry}" if without_secrets(entry) == entry else ""
    return f"add --trust{permanently}"


def _covers(prefix: str, uri: str) -> bool:
    """A prefix must end at a boundary, so that `models:/a` does not trust `models:/ab/1`; `..` is never covered.

    uri: as `_normal` returns it.
    """
    prefix = _normal(prefix)
    if _has_parent_part(uri) or not uri.startswith(prefix) or urlsplit(uri).netloc != urlsplit(prefix).netloc:
        return False
    if without_secrets(uri) != uri:  # a query may select any model of the host
        return False
    ends = "/@" if uri.startswith("models:") else "/"  # an alias follows a model's name; elsewhere @ is a letter
    return prefix[-1] in ends or uri[len(prefix) :][:1] in ("", *ends)


def _normal(uri: str) -> str:
    """A local path made absolute with its links resolved; any other URI without user information."""
    path = local_path(uri)
    if path is None:
        return without_user(uri)
    resolved = str(path.resolve()).rstrip("/")
    return resolved + ("/" if uri.endswith("/") or not resolved else "")


def _has_parent_part(uri: str) -> bool:
    plain = re.sub(r"[\t\r\n]", "", unquote(uri))  # urlsplit ignores these, so `.\t.` is a parent part
    return ".." in plain.replace("\\", "/").split("/")


# --- the store -----------------------------------------------------------------------------------------------------


def current_store() -> str:
    """The store that MLflow would use for a URI that names none, in canonical form, without secrets.

    Names both stores if the registry and the runs are in different ones. Determined from environment variables, which
    MLflow's `set_tracking_uri` and `set_registry_uri` set too, without importing MLflow.
    """
    tracking = _canonical(os.environ.get("MLFLOW_TRACKING_URI") or _default())
    registry = os.environ.get("MLFLOW_REGISTRY_URI")
    if not registry or _canonical(registry) == tracking:
        return tracking
    return f"{_canonical(registry)} with runs in {tracking}"


def _default() -> str:
    """MLflow 3's default: the folder `mlruns` if it contains experiments, else a database in the current folder."""
    return "mlruns" if any(Path("mlruns").glob("[0-9]*/meta.yaml")) else "sqlite:///mlflow.db"


def _canonical(store: str) -> str:
    if store in ("databricks", "databricks-uc", "uc"):  # names rather than paths
        return store
    parts = urlsplit(store)
    if parts.scheme in ("", "file"):
        return str(Path(unquote(parts.path)).resolve())
    if parts.scheme.partition("+")[0] == "sqlite":
        return f"sqlite:///{Path(parts.path[1:]).resolve()}"
    return without_secrets(store).rstrip("/")
