"""The manifest, `likewise.json`, which describes a bundle.

It has three layers, so that the digest identifies the model and nothing else:
`content` (model, references, signature, row_wise, pipeline) is covered by `digest` and is the same on every machine;
`source`, `environment`, `engines` and `measured` record where the model came from and how it runs;
`seal` covers every byte of the file, so that any change is detected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from likewise.bundles.folder import FileEntry, safe_relative
from likewise.core.digests import sha256_json
from likewise.core.errors import BundleInvalid, BundleTampered, UnsafeArchive
from likewise.core.uris import without_secrets

FORMAT = 1
MANIFEST = "likewise.json"
CONTENT_FOLDERS = ("model", "references")
OTHER_FOLDERS = ("engine", "wheels")


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

    @property
    def digest(self) -> str:
        """The digest of the environment, which is not part of the bundle's digest."""
        return sha256_json(asdict(self))


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """One engine that can run the bundle; the manifest lists the best one first.

    runs_code: whether it runs the model's own Python code, and so needs trust.
    digest: of the instructions only (torch: the declared pipeline; pyfunc: the environment that its code needs).  It
    does not cover the weights: the bundle's digest does, and an open engine's `spec.digest` covers both.
    """

    name: str
    precision: str
    runs_code: bool
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of `likewise.json`."""

    files: Mapping[str, FileEntry]
    references: tuple[Reference, ...] = ()
    signature_raw: Mapping[str, object] | None = None
    row_wise: bool = False
    pipeline: Mapping[str, object] | None = None
    source: ModelSource = field(default=ModelSource("", ""))
    environment: LoggedEnvironment = field(default=LoggedEnvironment())
    engines: tuple[EngineEntry, ...] = ()
    measured: Mapping[str, object] = field(default_factory=dict)

    @property
    def content(self) -> dict[str, object]:
        """The part that the digest covers."""
        return {
            "format": FORMAT,
            "files": {
                path: asdict(entry)
                for path, entry in sorted(self.files.items())
                if path.partition("/")[0] in CONTENT_FOLDERS
            },
            "references": [{"uri": r.uri, "path": r.path} for r in self.references],
            "signature": self.signature_raw,
            "row_wise": self.row_wise,
            "pipeline": self.pipeline,
        }

    @property
    def digest(self) -> str:
        """The digest that identifies the bundle: SHA-256 of the content as canonical JSON."""
        return sha256_json(self.content)

    def dump(self) -> bytes:
        """The bytes of `likewise.json`, in the only form that `load_manifest` accepts."""
        content = self.content
        body: dict[str, object] = {
            "likewise": FORMAT,
            "digest": self.digest,
            "content": content,
            "other_files": {p: asdict(e) for p, e in sorted(self.files.items()) if p not in content["files"]},  # type: ignore[operator]
            "via": {r.uri: r.via for r in self.references},
            "source": asdict(self.source),
            "environment": {**asdict(self.environment), "digest": self.environment.digest},
            "engines": [asdict(entry) for entry in self.engines],
            "measured": dict(self.measured),
        }
        sealed = {**body, "seal": sha256_json(body)}
        return json.dumps(sealed, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    def with_measured(self, **figures: object) -> Manifest:
        """A copy with more measurements; the digest does not change."""
        return replace(self, measured={**self.measured, **figures})


def load_manifest(data: bytes) -> Manifest:
    """Parse and validate `likewise.json`.

    Raises BundleInvalid (unsupported format), BundleTampered (any changed byte), UnsafeArchive (a path that leaves its
    folder; the seal does not rule that out, because the bundle's author computes it).
    """
    try:
        body = json.loads(data)
        version = body["likewise"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _tampered("its manifest cannot be parsed") from error
    if version != FORMAT:
        raise BundleInvalid(
            f"the bundle has format {version!r}, but this version of Likewise reads format {FORMAT}",
            remedy="bundle the model again with this version: likewise bundle MODEL -o DIR",
        )
    try:
        manifest = _parse(body)
        if unchanged := manifest.dump() == data:
            _check_paths(manifest)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _tampered("its manifest has missing or unexpected parts") from error
    if not unchanged:
        raise _tampered("its manifest does not match its seal")
    return manifest


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


def _parse(body: Mapping[str, dict]) -> Manifest:  # type: ignore[type-arg]
    content, via = body["content"], body["via"]
    files = {**content["files"], **body["other_files"]}
    environment = body["environment"]
    return Manifest(
        files={path: FileEntry(**entry) for path, entry in files.items()},
        references=tuple(Reference(r["uri"], r["path"], via[r["uri"]]) for r in content["references"]),
        signature_raw=content["signature"],
        row_wise=content["row_wise"],
        pipeline=content["pipeline"],
        source=ModelSource(**body["source"]),
        environment=LoggedEnvironment(environment["python"], tuple(environment["requirements"])),
        engines=tuple(EngineEntry(**entry) for entry in body["engines"]),
        measured=body["measured"],
    )


def _tampered(what: str) -> BundleTampered:
    return BundleTampered(
        f"the bundle was modified after it was built: {what}",
        remedy="do not use it; bundle the model again: likewise bundle MODEL -o DIR",
    )
