"""The manifest, `likewise.json`, which describes a bundle.

It has two digests.  `digest`, the model digest, covers `content` (model, references, signature, row_wise, pipeline) and
is the same on every machine.  `build`, the build digest, also covers `other_files` (compiled engines, wheels),
`environment`, `engines` and their `rates`, which choose one of them: everything that decides a prediction or an
environment.
`source`, `via` and `measured` record where the model came from and how it was verified; neither digest covers them.
`checksum` covers the file, to detect accidental damage.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from types import NoneType
from typing import Any

from likewise.bundles.folder import FileEntry, safe_relative
from likewise.core.digests import sha256_json
from likewise.core.errors import BundleInvalid, BundleTampered, UnsafeArchive
from likewise.core.uris import without_secrets

FORMAT = 2
CONTENT_FORMAT = 1  # a part of the model digest, which is the same in all formats
MANIFEST = "likewise.json"
CONTENT_FOLDERS = ("model", "references")
OTHER_FOLDERS = ("engine", "wheels")
REBUILD = "bundle the model again: likewise bundle MODEL -o DIR"
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A model or file that the pipeline opens by `uri`, and its path in the bundle.

    via: `declared` by the model, `traced` while it was loading, or `given` on the command line.
    """

    uri: str
    path: str
    via: str


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The requested model URI and what it resolved to."""

    uri: str
    resolved: str

    @property
    def clean(self) -> ModelSource:
        """The source without secrets; bundles that older versions built may contain some."""
        return ModelSource(without_secrets(self.uri), without_secrets(self.resolved))


@dataclass(frozen=True, slots=True)
class LoggedEnvironment:
    """The Python version and requirement lines that the model was logged with, which its own Python code needs."""

    python: str | None = None
    requirements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """One engine that can run the bundle; the manifest lists the best one first.

    Whether it runs the model's own code is a property of its class, see `likewise.engine.kinds`.
    """

    name: str
    precision: str


@dataclass(frozen=True)
class Manifest:
    """The contents of `likewise.json`; its digests are computed once.

    rates: rows per second by engine label, by CPU class; see `likewise.engine.rates`.
    """

    files: Mapping[str, FileEntry]
    references: tuple[Reference, ...] = ()
    signature_raw: Mapping[str, object] | None = None
    row_wise: bool = False
    pipeline: Mapping[str, object] | None = None
    source: ModelSource = field(default=ModelSource("", ""))
    environment: LoggedEnvironment = field(default=LoggedEnvironment())
    engines: tuple[EngineEntry, ...] = ()
    rates: Mapping[str, object] = field(default_factory=dict)
    measured: Mapping[str, object] = field(default_factory=dict)
    format: int = FORMAT

    @cached_property
    def content(self) -> dict[str, object]:
        """The part that the model digest covers."""
        return {
            "format": CONTENT_FORMAT,
            "files": self._files(own=True),
            "references": [{"uri": r.uri, "path": r.path} for r in self.references],
            "signature": self.signature_raw,
            "row_wise": self.row_wise,
            "pipeline": self.pipeline,
        }

    @cached_property
    def built(self) -> dict[str, object]:
        """The part that only the build digest covers."""
        return {
            "other_files": self._files(own=False),
            "environment": asdict(self.environment),
            "engines": [asdict(entry) for entry in self.engines],
            "rates": dict(self.rates),
        }

    @cached_property
    def digest(self) -> str:
        """The model digest: SHA-256 of the content as canonical JSON."""
        return sha256_json(self.content)

    @cached_property
    def build(self) -> str:
        """The build digest: SHA-256 of the model digest and of `built` as canonical JSON."""
        return sha256_json({"model": self.digest, **self.built})

    @property
    def lacks(self) -> str | None:
        """What a bundle in an earlier format lacks, as a sentence for the user; None for the current format."""
        if self.format == FORMAT:
            return None
        return (
            f"the bundle has format {self.format}, which does not record its build digest ({self.build}), so compare "
            "the whole folder with its origin, or bundle the model again"
        )

    def dump(self) -> bytes:
        """The bytes of `likewise.json`, in the only form that `load_manifest` accepts."""
        body: dict[str, object] = {
            "likewise": FORMAT,
            "digest": self.digest,
            "build": self.build,
            "content": self.content,
            **self.built,
            "via": {r.uri: r.via for r in self.references},
            "source": asdict(self.source),
            "measured": dict(self.measured),
        }
        return _text({**body, "checksum": sha256_json(body)})

    def _files(self, *, own: bool) -> dict[str, object]:
        """The entries of the model and its references, or of all other files."""
        return {
            path: {"size": entry.size, "sha256": entry.sha256}
            for path, entry in sorted(self.files.items())
            if (path.partition("/")[0] in CONTENT_FOLDERS) is own
        }

    def with_measured(self, **figures: object) -> Manifest:
        """A copy with more measurements; the digests do not change."""
        return replace(self, measured={**self.measured, **figures})


def load_manifest(data: bytes) -> Manifest:
    """Parse and validate `likewise.json`, also in format 1 (see `Manifest.lacks`).

    Raises BundleInvalid (unsupported format), BundleTampered (any changed byte), UnsafeArchive (a path that leaves its
    folder; the checksum does not rule that out, because the bundle's author computes it).
    """
    try:
        body = json.loads(data)
        version = body["likewise"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _tampered("its manifest cannot be parsed") from error
    if version not in (1, FORMAT) or isinstance(version, bool):
        remedy = "upgrade Likewise: pip install --upgrade likewise" if _newer(version) else REBUILD
        raise BundleInvalid(
            f"the bundle has format {version!r}, but this version of Likewise reads the formats 1 to {FORMAT}",
            remedy=remedy,
        )
    try:
        manifest = _parse(body)
        unchanged = (manifest.dump() if version == FORMAT else _format_1(body, manifest)) == data
        if unchanged:
            _check_paths(manifest)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _tampered("its manifest has missing or unexpected parts") from error
    if not unchanged:
        raise _tampered("its manifest does not match its checksum")
    return manifest


def _newer(version: object) -> bool:
    return isinstance(version, int) and version > FORMAT


def _format_1(body: Mapping[str, object], manifest: Manifest) -> bytes:
    """The only valid bytes of a manifest in format 1, whose checksum was called `seal`."""
    rest = {key: value for key, value in body.items() if key != "seal"}
    return _text({**rest, "digest": manifest.digest, "content": manifest.content, "seal": sha256_json(rest)})


def _text(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _check_paths(manifest: Manifest) -> None:
    """Raise UnsafeArchive unless all files are in the bundle's folders and all references below `references/`."""
    all_folders = (*CONTENT_FOLDERS, *OTHER_FOLDERS)
    paths: list[tuple[str, tuple[str, ...]]] = [(path, all_folders) for path in manifest.files]
    paths += [(reference.path, ("references",)) for reference in manifest.references]
    for path, folders in paths:
        top, _, inside = safe_relative(path).partition("/")
        if top not in folders or not inside:
            raise UnsafeArchive(
                f"the manifest names {path!r}, which is not below {' or '.join(f + '/' for f in folders)}",
                remedy="do not use this bundle; build it again: likewise bundle MODEL -o DIR",
            )


def _parse(body: Mapping[str, Any]) -> Manifest:
    content, via, environment = body["content"], body["via"], body["environment"]
    files = {**content["files"], **body["other_files"]}
    return Manifest(
        files={path: _file(entry) for path, entry in files.items()},
        references=tuple(
            Reference(_is(str, r["uri"]), _is(str, r["path"]), _is(str, via[r["uri"]])) for r in content["references"]
        ),
        signature_raw=_is((dict, NoneType), content["signature"]),
        row_wise=_is(bool, content["row_wise"]),
        pipeline=_is((dict, NoneType), content["pipeline"]),
        source=ModelSource(**{key: _is(str, value) for key, value in body["source"].items()}),
        environment=LoggedEnvironment(
            _is((str, NoneType), environment["python"]),
            tuple(_is(str, line) for line in environment["requirements"]),
        ),
        engines=tuple(EngineEntry(_is(str, e["name"]), _is(str, e["precision"])) for e in body["engines"]),
        rates=_is(dict, body["rates"] if body["likewise"] == FORMAT else body["measured"].get("rates", {})),
        measured={name: value for name, value in _is(dict, body["measured"]).items() if name != "rates"},
        format=body["likewise"],
    )


def _file(entry: Mapping[str, Any]) -> FileEntry:
    if not _SHA256.fullmatch(entry["sha256"]) or isinstance(entry["size"], bool):
        raise ValueError("not a file's size and digest")
    return FileEntry(_is(int, entry["size"]), entry["sha256"])


def _is(kind: type | tuple[type, ...], value: Any) -> Any:
    """`value`; raises TypeError if it has another type."""
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.50} has the wrong type")
    return value


def _tampered(what: str) -> BundleTampered:
    return BundleTampered(f"the bundle was modified after it was built: {what}", remedy=f"do not use it; {REBUILD}")
