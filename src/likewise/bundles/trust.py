"""Who may run code: nobody, unless the user has said so.

An MLflow pyfunc can run anything.  `--trust` allows it once; `likewise trust PREFIX-OR-DIGEST` remembers it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_config_path

from likewise.core.digests import PREFIX
from likewise.core.errors import CodeNotTrusted, WrongUsage


def trust_file() -> Path:
    """Where remembered trust lies: `trust.json` in the user's configuration folder, or in `LIKEWISE_CONFIG_HOME`."""
    home = os.environ.get("LIKEWISE_CONFIG_HOME")
    return (Path(home) if home else user_config_path("likewise")) / "trust.json"


def remembered() -> tuple[str, ...]:
    """The prefixes and digests that the user trusts, sorted; none where the file is not there."""
    try:
        entries = json.loads(trust_file().read_bytes())
    except FileNotFoundError:
        return ()
    except ValueError as error:
        raise WrongUsage(f"{trust_file()} is not readable: {error}", remedy="mend or remove the file") from error
    if not isinstance(entries, list) or not all(isinstance(e, str) for e in entries):
        raise WrongUsage(f"{trust_file()} is not a JSON list of strings", remedy="mend or remove the file")
    return tuple(sorted(entries))


def remember(entry: str) -> tuple[str, ...]:
    """Trust a URI prefix (`models:/team-a/`, a store's folder) or a bundle's digest from now on."""
    _check(entry)
    return _store({*remembered(), entry})


def forget(entry: str) -> tuple[str, ...]:
    """Take an entry back; WrongUsage where it was never there."""
    if entry not in remembered():
        raise WrongUsage(f"{entry!r} is not on the list", remedy="likewise trust --list shows the entries")
    return _store(set(remembered()) - {entry})


def _store(entries: Iterable[str]) -> tuple[str, ...]:
    path = trust_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(sorted(entries), indent=2) + "\n")
    beside.replace(path)
    return remembered()


def _check(entry: str) -> None:
    if entry.startswith(PREFIX):
        if len(entry) != len(PREFIX) + 64:
            raise WrongUsage(f"{entry!r} is not a whole digest", remedy="give all 64 digits: likewise inspect MODEL")
    elif len(entry.strip("/: ")) < 3 or entry != entry.strip():
        raise WrongUsage(
            f"{entry!r} would trust nearly everything, or nothing",
            remedy="give a URI prefix such as models:/NAME/, a folder, or sha256:…",
        )


@dataclass(frozen=True)
class Trust:
    """What is allowed in this call: everything (`allow`), or what is remembered."""

    allow: bool = False
    entries: tuple[str, ...] = field(default_factory=remembered)

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


def _covers(prefix: str, uri: str) -> bool:
    """A prefix ends at a boundary, so that `models:/a` does not trust `models:/ab/1`."""
    return uri.startswith(prefix) and (prefix[-1] in "/@" or uri[len(prefix) :][:1] in ("", "/", "@"))
