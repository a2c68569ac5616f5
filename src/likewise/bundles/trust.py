"""Which models may run their own code: none, unless the user has allowed it.

An MLflow pyfunc can run arbitrary code.  `--trust` allows it once; `likewise trust PREFIX-OR-DIGEST` permanently.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from platformdirs import user_config_path

from likewise.bundles.open import Bundle
from likewise.bundles.references import local_path
from likewise.core.digests import PREFIX
from likewise.core.errors import CodeNotTrusted, WrongUsage
from likewise.core.uris import redacted, without_secrets, without_user

STORELESS = ("models", "runs", "mlflow-artifacts")  # schemes whose meaning depends on the configured store


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
    """All entries, for every store, sorted; empty if the file does not exist."""
    try:
        entries = json.loads(trust_file().read_bytes())
        # earlier versions did not remove passwords
        return tuple(
            sorted(TrustEntry(without_user(e["prefix"]), e["store"] and redacted(e["store"])) for e in entries)
        )
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError, KeyError) as error:
        raise WrongUsage(
            f"{trust_file()} is not a list of entries with prefix and store: {error}", remedy="fix or delete the file"
        ) from error


def active_entries() -> tuple[str, ...]:
    """The prefixes and digests that apply to the store that is configured now."""
    return tuple(entry.prefix for entry in remembered() if entry.counts)


def remember(prefix: str) -> tuple[TrustEntry, ...]:
    """Trust a URI prefix (`models:/team-a/`, a folder) or a bundle's digest from now on.

    A prefix that names no store is trusted only in the store that is configured now.
    """
    _check(prefix)
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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps([asdict(entry) for entry in sorted(entries)], indent=2) + "\n")
    temporary.replace(path)
    return remembered()


def _check(prefix: str) -> None:
    try:
        urlsplit(prefix)
    except ValueError as error:
        raise WrongUsage(f"{prefix!r} is not a valid URI: {error}", remedy="check the spelling") from error
    if prefix.startswith(PREFIX):
        if len(prefix) != len(PREFIX) + 64:
            raise WrongUsage(
                f"{prefix!r} is not a complete digest",
                remedy="pass all 64 digits, as shown by: likewise inspect MODEL",
            )
    elif min(len(prefix.strip("/: ")), len(_normal(prefix).strip("/: "))) < 3 or prefix != prefix.strip():
        raise WrongUsage(
            f"{prefix!r} would trust nearly everything, or nothing",
            remedy="pass a URI prefix such as models:/NAME/, a folder, or sha256:…",
        )
    elif without_secrets(_normal(prefix)) != _normal(prefix):
        raise WrongUsage(
            f"the URI {without_secrets(prefix)} is given with a query, a fragment or invalid user information",
            remedy="pass the URI without them; a model whose URI has a query needs --trust, or its bundle's digest",
        )
    elif _has_parent_part(_normal(prefix)):
        raise WrongUsage(f"{prefix!r} contains '..'", remedy="pass the resolved prefix")


@dataclass(frozen=True)
class Trust:
    """What may run code in this call: everything (`allow`), or what matches the prefixes and digests in `entries`."""

    allow: bool = False
    entries: tuple[str, ...] = field(default_factory=active_entries)

    def allows(self, *, uri: str | None = None, digest: str | None = None) -> bool:
        """Whether code of the model named by `uri`, or of the bundle with `digest`, may run."""
        if self.allow or (digest is not None and digest in self.entries):
            return True
        return uri is not None and any(_covers(e, uri) for e in self.entries if not e.startswith(PREFIX))

    def require(self, *, uri: str | None = None, digest: str | None = None, what: str = "the model") -> None:
        """Raise CodeNotTrusted, which describes the two ways to allow the code, unless `allows`."""
        if not self.allows(uri=uri, digest=digest):
            name = digest or _normal(uri or "")
            permanently = f", or allow it permanently: likewise trust {name}" if without_secrets(name) == name else ""
            raise CodeNotTrusted(
                f"{what} can only be loaded by running its own Python code, which has not been allowed",
                remedy=f"if you trust its author, add --trust{permanently}",
            )

    def allows_bundle(self, bundle: Bundle) -> bool:
        """Whether code of `bundle` may run, by its folder or its digest.

        The manifest's own `source` is ignored: an untrusted bundle may claim any.
        """
        return self.allows(uri=str(bundle.path.resolve()), digest=bundle.digest)

    def require_bundle(self, bundle: Bundle) -> None:
        """Raise CodeNotTrusted unless `allows_bundle`."""
        self.require(uri=str(bundle.path.resolve()), digest=bundle.digest, what=f"the bundle {bundle.path}")


def _covers(prefix: str, uri: str) -> bool:
    """A prefix must end at a boundary, so that `models:/a` does not trust `models:/ab/1`; `..` is never covered."""
    prefix, uri = _normal(prefix), _normal(uri)
    if _has_parent_part(uri) or not uri.startswith(prefix) or urlsplit(uri).netloc != urlsplit(prefix).netloc:
        return False
    ends = "/@" if uri.startswith("models:") else "/"  # an alias follows a model's name; elsewhere @ is a letter
    return prefix[-1] in ends or uri[len(prefix) :][:1] in ("", *ends)


def _normal(uri: str) -> str:
    """A local path made absolute with its links resolved; any other URI without user information."""
    path = local_path(uri)
    return without_user(uri) if path is None else str(path.resolve()) + ("/" if uri.endswith("/") else "")


def _has_parent_part(uri: str) -> bool:
    return ".." in unquote(uri).replace("\\", "/").split("/")


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
