"""Who may run code: nobody, unless the user has said so.

An MLflow pyfunc can run anything.  `--trust` allows it once; `likewise trust PREFIX-OR-DIGEST` remembers it.
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

STORELESS = ("models", "runs", "mlflow-artifacts")  # schemes that mean another thing in another store


@dataclass(frozen=True, slots=True, order=True)
class TrustEntry:
    """What the user trusts: a bundle's digest, or every URI that begins with `prefix`.

    store: the store that was asked when it was remembered, where the prefix names none (`models:/…`, `runs:/…`).
    """

    prefix: str
    store: str | None = None

    @property
    def counts(self) -> bool:
        """Whether it says anything of the store that is asked now."""
        return self.store in (None, asked_store())


def trust_file() -> Path:
    """Where remembered trust lies: `trust.json` in the user's configuration folder, or in `LIKEWISE_CONFIG_HOME`."""
    return Path(os.environ.get("LIKEWISE_CONFIG_HOME") or user_config_path("likewise"), "trust.json")


def remembered() -> tuple[TrustEntry, ...]:
    """What the user trusts, of every store, sorted; nothing where the file is not there."""
    try:
        entries = json.loads(trust_file().read_bytes())
        return tuple(sorted(TrustEntry(str(e["prefix"]), e["store"]) for e in entries))
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError, KeyError) as error:
        raise WrongUsage(
            f"{trust_file()} is not a list of entries with prefix and store: {error}", remedy="mend or remove the file"
        ) from error


def in_force() -> tuple[str, ...]:
    """The prefixes and digests that count while the store is the one that is asked now."""
    return tuple(entry.prefix for entry in remembered() if entry.counts)


def remember(prefix: str) -> tuple[TrustEntry, ...]:
    """Trust a URI prefix (`models:/team-a/`, a folder) or a bundle's digest from now on.

    A prefix that names no store is trusted in the one that is asked now.
    """
    _check(prefix)
    entry = TrustEntry(_normal(prefix), asked_store() if urlsplit(prefix).scheme in STORELESS else None)
    return _save({*remembered(), entry})


def forget(prefix: str) -> tuple[TrustEntry, ...]:
    """Take an entry back, in every store; WrongUsage where it was never there."""
    kept = [entry for entry in remembered() if entry.prefix not in (prefix, _normal(prefix))]
    if len(kept) == len(remembered()):
        raise WrongUsage(f"{prefix!r} is not on the list", remedy="likewise trust --list shows the entries")
    return _save(kept)


def _save(entries: Iterable[TrustEntry]) -> tuple[TrustEntry, ...]:
    path = trust_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps([asdict(entry) for entry in sorted(entries)], indent=2) + "\n")
    beside.replace(path)
    return remembered()


def _check(prefix: str) -> None:
    try:
        urlsplit(prefix)
    except ValueError as error:
        raise WrongUsage(f"{prefix!r} is no URI: {error}", remedy="check the spelling") from error
    if prefix.startswith(PREFIX):
        if len(prefix) != len(PREFIX) + 64:
            raise WrongUsage(f"{prefix!r} is not a whole digest", remedy="give all 64 digits: likewise inspect MODEL")
    elif min(len(prefix.strip("/: ")), len(_normal(prefix).strip("/: "))) < 3 or prefix != prefix.strip():
        raise WrongUsage(
            f"{prefix!r} would trust nearly everything, or nothing",
            remedy="give a URI prefix such as models:/NAME/, a folder, or sha256:…",
        )
    elif _climbs(_normal(prefix)):
        raise WrongUsage(f"{prefix!r} climbs with '..'", remedy="give the prefix that it leads to")


@dataclass(frozen=True)
class Trust:
    """What is allowed in this call: everything (`allow`), or the prefixes and digests in `entries`."""

    allow: bool = False
    entries: tuple[str, ...] = field(default_factory=in_force)

    def allows(self, *, uri: str | None = None, digest: str | None = None) -> bool:
        """Whether code of the model named by `uri`, or of the bundle with `digest`, may run."""
        if self.allow or (digest is not None and digest in self.entries):
            return True
        return uri is not None and any(_covers(e, uri) for e in self.entries if not e.startswith(PREFIX))

    def require(self, *, uri: str | None = None, digest: str | None = None, what: str = "the model") -> None:
        """CodeNotTrusted, with the two ways to allow it, unless `allows`."""
        if not self.allows(uri=uri, digest=digest):
            name = digest or uri
            raise CodeNotTrusted(
                f"{what} can only be loaded by running its own Python code, which nobody has allowed",
                remedy=f"if you trust its maker: add --trust, or once and for all: likewise trust {name}",
            )

    def allows_bundle(self, bundle: Bundle) -> bool:
        """Whether code of `bundle` may run, by its folder or its digest.

        Never by the manifest's own `source`: a stranger's bundle may claim any.
        """
        return self.allows(uri=str(bundle.path.resolve()), digest=bundle.digest)

    def require_bundle(self, bundle: Bundle) -> None:
        """CodeNotTrusted unless `allows_bundle`."""
        self.require(uri=str(bundle.path.resolve()), digest=bundle.digest, what=f"the bundle {bundle.path}")


def _covers(prefix: str, uri: str) -> bool:
    """A prefix ends at a boundary, so that `models:/a` does not trust `models:/ab/1`; nothing climbs out of one."""
    prefix, uri = _normal(prefix), _normal(uri)
    if _climbs(uri) or not uri.startswith(prefix) or urlsplit(uri).netloc != urlsplit(prefix).netloc:
        return False
    ends = "/@" if uri.startswith("models:") else "/"  # an alias follows a model's name; elsewhere @ is a letter
    return prefix[-1] in ends or uri[len(prefix) :][:1] in ("", *ends)


def _normal(uri: str) -> str:
    """A local path as the disk has it, absolute and through its links; another URI as it is."""
    path = local_path(uri)
    return uri if path is None else str(path.resolve()) + ("/" if uri.endswith("/") else "")


def _climbs(uri: str) -> bool:
    return ".." in unquote(uri).replace("\\", "/").split("/")


# --- the store -----------------------------------------------------------------------------------------------------


def asked_store() -> str:
    """The store that MLflow would ask for a URI that names none, in one spelling, without a password.

    Both, where registry and runs lie in different ones. Told from the environment, without MLflow, whose
    `set_tracking_uri` and `set_registry_uri` set the same variables.
    """
    tracking = _spelled(os.environ.get("MLFLOW_TRACKING_URI") or _default())
    registry = os.environ.get("MLFLOW_REGISTRY_URI")
    if not registry or _spelled(registry) == tracking:
        return tracking
    return f"{_spelled(registry)} with runs in {tracking}"


def _default() -> str:
    """Of MLflow 3: the folder `mlruns` where it holds experiments, else a database in the current folder."""
    return "mlruns" if any(Path("mlruns").glob("[0-9]*/meta.yaml")) else "sqlite:///mlflow.db"


def _spelled(store: str) -> str:
    if store in ("databricks", "databricks-uc", "uc"):  # names, and no paths
        return store
    parts = urlsplit(store)
    if parts.scheme in ("", "file"):
        return str(Path(unquote(parts.path)).resolve())
    if parts.scheme.partition("+")[0] == "sqlite":
        return f"sqlite:///{Path(parts.path[1:]).resolve()}"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
