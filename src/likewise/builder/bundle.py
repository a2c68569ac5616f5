"""From a model URI to a bundle that has proved that it stands alone."""

from __future__ import annotations

import errno
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlparse

from likewise.builder.compile import compile_engines
from likewise.builder.failures import unwritable
from likewise.builder.measure import measure
from likewise.builder.prove import prove
from likewise.builder.resolve import plain_name, resolve, sqlite_file
from likewise.builder.texts import given_texts
from likewise.builder.trace import outermost, trace
from likewise.bundles.folder import FileEntry, inventory
from likewise.bundles.format import MANIFEST, EngineEntry, Manifest, ModelSource, Reference, load_manifest
from likewise.bundles.open import Bundle, is_bundle, open_bundle, write_manifest
from likewise.bundles.references import local_path, normal
from likewise.bundles.trust import STORELESS, Trust
from likewise.core.errors import CodeNotTrusted, LikewiseError, ModelNotFound, OutputRefused
from likewise.core.extras import need
from likewise.engine.engine_options import CompileOptions
from likewise.engine.kinds import CalibrationTexts, CompileRequest, runs_code
from likewise.engine.rates import cache_home, cpu_class
from likewise.pipeline.mlmodel import read_model

OnProgress = Callable[[str], None]
STORE_FOLDERS = ("mlruns", "mlartifacts")


def build_bundle(
    uri: str,
    output: str | Path,
    *,
    trust: Trust,
    references: Sequence[str] = (),
    row_wise: bool | None = None,
    compiling: CompileOptions | None = None,
    report: OnProgress | None = None,
) -> Bundle:
    """Make a bundle of the model `uri` in the new folder `output`, which appears only when whole and proved.

    references: URIs to vendor beside those that the model declares or opens.  row_wise: overrides what it declares.
    compiling: how the fast engine is made and measured.  report: is told each step in a line.
    Without trust no code of the model runs; a model that only its own code can run, or that declares a reference
    outside the tracking store, is refused (CodeNotTrusted).  The bundle's `source` is what this call asked for.
    Raises ModelNotFound, ModelInvalid, StoreUnreachable, UnsafeArchive, NotSelfContained, RowWiseRefuted,
    OutputRefused (it exists and is not this very bundle, or cannot be written), EngineUnavailable (a precision that is
    not right for this model, or here), InputNotFound and InputInvalid (the calibration texts).
    """
    target = Path(output).absolute()
    options = compiling or CompileOptions()
    given = given_texts(options.calibration, options.calibration_column) if options.calibration else None
    _refuse_occupied(target, uri)
    with _staging(target) as stage:
        draft = _Draft(uri, stage, trust, tuple(references), row_wise, report or _silent, options, given)
        draft.fill()
        sealed = draft.seal()
        if is_bundle(target):
            held = _same_or_refused(target, sealed.digest)
            draft.report("this very bundle is there already, and stays as it is; to compile it anew, remove it")
            return draft.asked_for(held)
        draft.compile(sealed)
        draft.prove()
        return draft.asked_for(_place(stage / "bundle", target, sealed.digest))


def cached_bundle(uri: str, *, trust: Trust, report: OnProgress | None = None) -> Bundle:
    """The bundle of `uri` from the cache, built where it is not there yet; raises what `build_bundle` does.

    The model and all that it opens are fetched anew, as a version or an alias may have moved; a bundle of the same
    digest is not proved again, and a model of the same bytes, which opens the same bytes, not traced again.
    """
    cache = cache_home() / "bundles"
    with _staging(cache / "new") as stage:
        draft = _Draft(uri, stage, trust, (), None, report or _silent)
        draft.fill(known=_cached_manifests(cache))
        sealed = draft.seal()
        target = cache / sealed.digest.replace(":", "-")
        if is_bundle(target):
            try:
                return draft.asked_for(open_bundle(target))
            except LikewiseError as error:
                draft.report(f"the cached bundle is made anew: {error.cause}")
                shutil.rmtree(target)
        draft.compile(sealed)
        draft.prove()
        return draft.asked_for(_place(stage / "bundle", target, sealed.digest))


def trusts(bundle: Bundle, uri: str, trust: Trust) -> bool:
    """Whether code of `bundle`, which `build_bundle` or `cached_bundle` has just returned for `uri`, may run.

    By the URI as it was typed, by what it resolved to, or by the digest.  Not for a bundle from elsewhere: its `source`
    is a claim of whoever made it.
    """
    return trust.allows(digest=bundle.digest) or _trusted(trust, uri, bundle.manifest.source.resolved)


@dataclass
class _Draft:
    """A bundle on its way, in `stage/bundle`."""

    uri: str
    stage: Path
    trust: Trust
    given: tuple[str, ...]
    row_wise: bool | None
    report: OnProgress
    compiling: CompileOptions = field(default_factory=CompileOptions)
    texts: CalibrationTexts | None = None
    timed_on: tuple[str, ...] = ()
    origins: list[Path] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.stage / "bundle"

    def fill(self, known: Sequence[Manifest] = ()) -> None:
        """Copy the model and what it opens."""
        self.report(f"fetching {self.uri}")
        self.source = resolve(self.uri, self.folder / "model")
        self.origins += self.source.origins
        self.facts = read_model(self.folder / "model")
        self.code = _trusted(self.trust, self.uri, self.source.resolved)
        if self.facts.needs_code and not self.code:
            self.trust.require(uri=_typed(self.uri), what=f"the model {self.uri}")
        wanted = dict.fromkeys(map(normal, self.facts.references), "declared")
        wanted |= dict.fromkeys(map(normal, self.given), "given")
        for uri, via in wanted.items():
            if via == "declared" and not self.code:
                _refuse_elsewhere(uri, self.uri)
            self._vendor(uri, via)
        if self.code and not self.facts.pipeline and not self._traced_before(known):
            self._trace()

    def seal(self) -> Bundle:
        """Write the manifest."""
        references = {r.uri: r for r in sorted(self.references, key=lambda r: r.uri)}
        kept = outermost({uri: self.folder / r.path for uri, r in references.items()})
        for uri in references.keys() - kept.keys():
            shutil.rmtree((self.folder / references[uri].path).parent)
        self.manifest = Manifest(
            files={},
            references=tuple(references[uri] for uri in kept),
            signature_raw=self.facts.signature_raw,
            row_wise=bool(self.facts.row_wise if self.row_wise is None else self.row_wise),
            pipeline=self.facts.pipeline,
            source=ModelSource(self.uri, self.source.resolved),
            environment=self.facts.environment,
            engines=self._engines(),
        )
        return write_manifest(self.folder, self.manifest)

    def _engines(self) -> tuple[EngineEntry, ...]:
        """Those that run the model as it was logged; what its own code opens is known of a traced or declared model."""
        known = self.code or self.facts.pipeline
        return tuple(entry for entry in self.facts.engines() if known or not runs_code(entry))

    def compile(self, sealed: Bundle) -> None:
        """Add the engines that can be compiled here; the digest stays."""
        request = CompileRequest(self.compiling, self.texts, self.facts, self.stage / "compile", self.report)
        made = compile_engines(sealed, request)
        self.timed_on = made.texts
        self.manifest = replace(self.manifest, engines=(*made.entries, *self.manifest.engines))
        write_manifest(self.folder, self.manifest)

    def prove(self) -> None:
        """Try it alone, time its engines, and note both in the manifest."""
        self.report("proving that it opens alone")
        hidden = [*_stores(self.origins), *_tracking_files()]
        proof = prove(self.folder, hidden=hidden, code=self.code)
        self.manifest = self.manifest.with_measured(
            proved=proof.isolation, proved_engines=list(proof.engines), proved_rows=proof.rows
        )
        bundle = write_manifest(self.folder, self.manifest)
        asked = f"{proof.rows} example rows" if proof.rows else "no example"
        self.report(f"proved with {', '.join(proof.engines)} on {asked}, cut off by {proof.isolation}")
        if self.timed_on and self.compiling.measure:
            self._measure(bundle)

    def _measure(self, bundle: Bundle) -> None:
        self.report("measuring its engines on this CPU")
        try:
            found = measure(bundle, self.timed_on)
        except LikewiseError as error:  # the bundle is whole and proved; which engine is fastest can be found out later
            self.report(f"not measured: {error.cause}")
            return
        for name in found.differing:
            self.report(f"{name} answers some text otherwise than fp32 does here, and comes after the others")
        self.manifest = self.manifest.with_measured(rates={cpu_class(): dict(found.rates)})
        write_manifest(self.folder, self.manifest)

    def asked_for(self, bundle: Bundle) -> Bundle:
        """`bundle`, which may have been made by another URI, as what this call asked for."""
        return Bundle(bundle.path, replace(bundle.manifest, source=self.manifest.source))

    def _vendor(self, uri: str, via: str) -> None:
        self.report(f"vendoring {uri}")
        path = _place_for(uri)
        resolved = resolve(uri, self.folder / path)
        self.origins += resolved.origins
        self.references.append(Reference(uri, path, via))

    def _traced_before(self, known: Sequence[Manifest]) -> bool:
        """Vendor what a model of the same bytes opened, where those are the same bytes too.

        What a model opens may be named by a file that it opens; so other bytes there make the old trace worthless.
        """
        declared = len(self.references)
        for manifest in _of_same_model(self.folder, known):
            held = {r.uri for r in self.references}
            try:
                for uri in (r.uri for r in manifest.references if r.uri not in held):
                    self._vendor(uri, "traced")
                if _same_references(self.folder, manifest):
                    return True
            except ModelNotFound:
                pass
            for reference in self.references[declared:]:
                shutil.rmtree((self.folder / reference.path).parent)
            del self.references[declared:]
        return False

    def _trace(self) -> None:
        self.report("tracing what it opens while it loads")
        held = {r.uri: self.folder / r.path for r in self.references}
        traced = trace(self.folder / "model", held, self.stage / "trace")
        self.origins += traced.origins
        for program in traced.programs:
            self.report(f"the model starts a program, and what that opens is not seen: {program}")
        for uri, copy in traced.copies.items():
            self.report(f"vendoring {uri}")
            path = _place_for(uri)
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            copy.rename(self.folder / path)
            self.references.append(Reference(uri, path, "traced"))


def _typed(uri: str) -> str:
    """The URI as the user typed it; a path made absolute, as no trust rests on the folder that one stands in."""
    path = local_path(uri)
    return uri if path is None else str(path.absolute())


def _trusted(trust: Trust, uri: str, resolved: str) -> bool:
    return trust.allows(uri=_typed(uri)) or trust.allows(uri=resolved)


def _refuse_elsewhere(reference: str, model: str) -> None:
    """CodeNotTrusted for a reference that would fetch a file of this machine, or from a host, that a stranger named."""
    parts = urlparse(reference)
    if parts.scheme not in STORELESS or parts.netloc:  # not in the user's own tracking store
        raise CodeNotTrusted(
            f"the model {model} declares the reference {reference}, which lies outside the tracking store, and nobody "
            "has allowed that it is copied into the bundle",
            remedy=f"if you want it there: add --reference {reference}, or --trust if you trust the model's maker",
        )


def _place_for(uri: str) -> str:
    """`references/HASH/NAME`: the same for the same URI everywhere."""
    return f"references/{hashlib.sha256(uri.encode()).hexdigest()[:12]}/{plain_name(uri)}"


def _stores(origins: Sequence[Path]) -> Iterator[Path]:
    """The whole local store that a copy came from where its layout shows, else the very folder."""
    for origin in dict.fromkeys(path.resolve() for path in origins):
        yield next((parent for parent in origin.parents if parent.name in STORE_FOLDERS), origin)


def _tracking_files() -> Iterator[Path]:
    mlflow = need("mlflow", extra="mlflow")
    for store in {mlflow.get_tracking_uri(), mlflow.get_registry_uri()}:
        path = sqlite_file(store) or (local_path(store) if urlparse(store).scheme in ("", "file") else None)
        if path is not None and path.exists():
            yield path


def _cached_manifests(cache: Path) -> list[Manifest]:
    manifests = []
    for path in cache.glob(f"sha256-*/{MANIFEST}"):
        try:
            manifests.append(load_manifest(path.read_bytes()))
        except LikewiseError:  # opened, it would be refused by name; here it is merely no help
            continue
    return manifests


def _of_same_model(folder: Path, known: Sequence[Manifest]) -> list[Manifest]:
    """Those of a traced model of the very same bytes."""
    model = {f"model/{name}": entry for name, entry in inventory(folder / "model").items()}
    return [m for m in known if not m.pipeline and model == _files_at("model", m.files)]


def _same_references(folder: Path, manifest: Manifest) -> bool:
    """Whether all that `manifest` refers to lies in `folder` with the very same bytes."""
    here = inventory(folder)
    return all(_files_at(r.path, here) == _files_at(r.path, manifest.files) for r in manifest.references)


def _files_at(path: str, files: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
    """Of the file `path`, or of all below the folder `path`."""
    return {name: entry for name, entry in files.items() if name == path or name.startswith(path + "/")}


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside `target`, on its disk, gone afterwards; that it cannot be written is OutputRefused."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise unwritable(error) from error
    try:
        yield stage
    except OSError as error:
        if not _of_writing(error, target.parent):
            raise
        raise unwritable(error) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _of_writing(error: OSError, folder: Path) -> bool:
    """Whether it says that there is no room, or that `folder` may not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    ours = isinstance(error.filename, str) and Path(error.filename).is_relative_to(folder)
    return ours and error.errno in (errno.EROFS, errno.EACCES)


def _refuse_occupied(target: Path, uri: str) -> None:
    if target.exists() and not (target.is_dir() and (is_bundle(target) or not any(target.iterdir()))):
        raise OutputRefused(f"{target} exists and is no bundle", remedy="name a folder that does not exist")
    model = local_path(uri)
    if model is not None and target.resolve().is_relative_to(model.resolve()):
        raise OutputRefused(f"{target} lies in the model's own folder", remedy="name a folder outside it")


def _place(folder: Path, target: Path, digest: str) -> Bundle:
    try:
        folder.rename(target)
    except OSError:
        if not target.exists():
            raise
        return _same_or_refused(target, digest)  # another process has made one meanwhile
    return open_bundle(target)


def _same_or_refused(target: Path, digest: str) -> Bundle:
    """The bundle at `target`, where that has this digest; OutputRefused else."""
    if is_bundle(target) and (held := open_bundle(target)).digest == digest:
        return held
    raise OutputRefused(
        f"{target} exists and is another bundle", remedy="name a folder that does not exist, or remove that one"
    )


def _silent(line: str) -> None:
    pass
