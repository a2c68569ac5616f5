"""The manifest, `likewise.json`: what a bundle is made of.

Three layers, so that a digest means the model and nothing else:
`content` (model, references, signature, row_wise, pipeline) is what `digest` covers, the same on every machine;
`source`, `environment`, `engines` and `measured` say where it came from and how it runs here;
`seal` covers every byte of the file, so that no part can be changed unseen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from likewise.bundles.folder import FileEntry, safe_relative
from likewise.core.digests import sha256_json
from likewise.core.errors import BundleInvalid, BundleTampered, UnsafeArchive

FORMAT = 1
MANIFEST = "likewise.json"
CONTENT_FOLDERS = ("model", "references")
OTHER_FOLDERS = ("engine", "wheels")


@dataclass(frozen=True, slots=True)
class Reference:
    """A model or file that the pipeline opens by `uri`, and where the bundle keeps it.

    via: `declared` by the model, `traced` while it loaded, or `given` on the command line.
    """

    uri: str
    path: str
    via: str


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The URI that was asked for and what it resolved to."""

    uri: str
    resolved: str


@dataclass(frozen=True, slots=True)
class LoggedEnvironment:
    """What the model's own Python code needs: its Python version and requirement lines, as it was logged."""

    python: str | None = None
    requirements: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of the versions, apart from the bundle's own."""
        return sha256_json(asdict(self))


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """One way to run the bundle, best first in the manifest.

    runs_code: needs the model's own Python code, and so trust.
    digest: of the instructions alone (torch: the declared pipeline; pyfunc: the environment that its code needs).  The
    weights are not in it: the bundle's digest covers those, and an opened engine's `spec.digest` covers both.
    """

    name: str
    precision: str
    runs_code: bool
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that `likewise.json` says."""

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
        """What the digest covers."""
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
        """The bundle's name: `sha256:` over the canonical content."""
        return sha256_json(self.content)

    def dump(self) -> bytes:
        """The bytes of `likewise.json`; the only form that `load` accepts."""
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
        """The same bundle with more measurements; the digest stays."""
        return replace(self, measured={**self.measured, **figures})


def load_manifest(data: bytes) -> Manifest:
    """Read and check `likewise.json`.

    Raises BundleInvalid (another format), BundleTampered (any changed byte), UnsafeArchive (a path that leaves its
    folder, which a seal does not make good: whoever made the bundle sealed it).
    """
    try:
        body = json.loads(data)
        version = body["likewise"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _tampered("its manifest is not readable") from error
    if version != FORMAT:
        raise BundleInvalid(
            f"the bundle has format {version!r}, this version of Likewise reads format {FORMAT}",
            remedy="bundle the model again with this version: likewise bundle MODEL -o DIR",
        )
    try:
        manifest = _parse(body)
        if unchanged := manifest.dump() == data:
            _stay_inside(manifest)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise _tampered("its manifest lacks parts or has others than it should") from error
    if not unchanged:
        raise _tampered("its manifest is not the one that was sealed")
    return manifest


def _stay_inside(manifest: Manifest) -> None:
    """Every file lies in one of the bundle's folders, and every reference below `references/`."""
    every = (*CONTENT_FOLDERS, *OTHER_FOLDERS)
    held: list[tuple[str, tuple[str, ...]]] = [(path, every) for path in manifest.files]
    held += [(reference.path, ("references",)) for reference in manifest.references]
    for path, folders in held:
        top, _, inside = safe_relative(path).partition("/")
        if top not in folders or not inside:
            raise UnsafeArchive(
                f"the manifest names {path!r}, which does not lie below {' or '.join(f + '/' for f in folders)}",
                remedy="do not use this bundle; make it again: likewise bundle MODEL -o DIR",
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
        f"the bundle was changed after it was made: {what}",
        remedy="do not use it; bundle the model again: likewise bundle MODEL -o DIR",
    )
