"""Builds a bundle from a model URI and verifies that it works in isolation."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlparse

from likewise.builder.compile import compile_engines
from likewise.builder.measure import measure
from likewise.builder.output import occupied, publish, refuse_occupied, staging
from likewise.builder.prove import Proof, prove
from likewise.builder.resolve import plain_name, resolve, same_content, sqlite_file
from likewise.builder.texts import calibration_texts
from likewise.builder.trace import ambiguous, outermost, trace
from likewise.bundles.cache import cache_folder
from likewise.bundles.folder import FileEntry, inventory
from likewise.bundles.format import MANIFEST, EngineEntry, Manifest, ModelSource, Reference, load_manifest
from likewise.bundles.open import Bundle, is_bundle, open_bundle, write_manifest
from likewise.bundles.references import local_path, lookup, normal, spelled
from likewise.bundles.trust import STORELESS, Trust
from likewise.core.errors import CodeNotTrusted, LikewiseError, ModelNotFound, StoreUnreachable
from likewise.core.extras import need
from likewise.core.unpack import keep
from likewise.core.uris import redacted, without_secrets
from likewise.engine.child import OnFraction
from likewise.engine.code_free import known_why_code
from likewise.engine.engine_options import CompileOptions
from likewise.engine.kinds import CalibrationTexts, CompileRequest, ModelFacts, runs_code
from likewise.engine.merging import Rows, rows_of
from likewise.engine.rates import cpu_class, label
from likewise.engine.versions import compare_model
from likewise.pipeline.mlmodel import read_model

OnProgress = Callable[[str], None]
STORE_FOLDERS = ("mlruns", "mlartifacts")
LOGGED_TEXTS = ("MLmodel", "requirements.txt", "conda.yaml", "python_env.yaml")


def build_bundle(
    uri: str,
    output: str | Path,
    *,
    trust: Trust,
    references: Sequence[str] = (),
    row_wise: bool | None = None,
    compiling: CompileOptions | None = None,
    existing: bool = True,
    allow_versions: bool = False,
    report: OnProgress | None = None,
    progress: OnFraction | None = None,
) -> Bundle:
    """Build a bundle of the model `uri` in the new folder `output`, which appears only when complete and verified.

    references: URIs to vendor in addition to those that the model declares or opens.  row_wise: overrides the model's
    declaration.  compiling: how the fast engine is compiled and measured.  existing: whether a bundle in `output` is
    returned if it has the same model digest; else it must be the same build.  allow_versions: whether a model whose
    library has another major version here is bundled anyway.  report: called with a line for each step.
    progress: called with the completed fraction of the step, from another thread.
    Without trust, none of the model's code runs, and CodeNotTrusted is raised for a model that needs its own code or
    that declares a reference outside the tracking store.  The bundle's `source` is the requested `uri`.  User
    information, query and fragment of URIs are only used for fetching: nothing that is stored or reported has them.
    Raises ModelNotFound, ModelInvalid, VersionsDiffer, StoreUnreachable, UnsafeArchive, NotSelfContained,
    RowWiseRefuted, OutputRefused (`output` exists and is not the same bundle, or cannot be written), EngineUnavailable
    (the precision does not suit the model or this machine), InputNotFound and InputInvalid (the calibration texts).
    """
    target = Path(output).absolute()
    options = compiling or CompileOptions()
    texts = None
    if options.calibration:
        texts = calibration_texts(options.calibration, options.calibration_column, options.agreement)
    refuse_occupied(target, uri)
    with staging(target) as stage:
        given = tuple(references)
        draft = _Draft(uri, stage, trust, given, row_wise, _clean(report), options, texts, allow_versions, progress)
        draft.fill()
        sealed = draft.seal()
        if existing and is_bundle(target):
            if not draft.made(found := open_bundle(target)):
                raise occupied(target)
            draft.report("the same bundle already exists and is unchanged; to recompile it, delete it first")
            return draft.with_source(found)
        draft.compile(sealed)
        proved = draft.prove()
        return draft.with_source(publish(stage / "bundle", target, proved.digest, same_build=not existing))


def cached_bundle(uri: str, *, trust: Trust, allow_versions: bool = False, report: OnProgress | None = None) -> Bundle:
    """The bundle of `uri` from the cache, built if it is missing; raises what `build_bundle` does.

    The model and everything that it opens are fetched each time, because an alias or stage may have moved. A bundle
    with the same digest is not verified again, and an unchanged model with unchanged references is not traced again.
    It stays in the cache until this process exits; after that it may be evicted, see `core.unpack`.
    """
    cache = cache_folder("bundles")
    with staging(cache / "new") as stage:
        draft = _Draft(uri, stage, trust, (), None, _clean(report), allow_versions=allow_versions)
        draft.fill(known=_cached_manifests(cache))
        sealed = draft.seal()
        for digest in (sealed.digest, draft.unmerged.digest):
            folder = cache / digest.replace(":", "-")
            if (found := draft.found(folder)) is not None and keep(folder):
                return draft.with_source(found)
        draft.compile(sealed)
        proved = draft.prove()
        target = cache / proved.digest.replace(":", "-")
        published = publish(stage / "bundle", target, proved.digest)
        keep(target, new=True)
        return draft.with_source(published)


def trusts(bundle: Bundle, uri: str, trust: Trust) -> bool:
    """Whether the code of `bundle`, which `build_bundle` or `cached_bundle` has just returned for `uri`, may run.

    Checks the URI as typed, the URI that it resolved to, and the build digest.  Do not use this for a bundle from
    elsewhere: its `source` is an unverified claim of its author.
    """
    return trust.allows(digest=bundle.build) or allows_code(trust, uri, bundle.manifest.source.resolved)


@dataclass
class _Draft:
    """A bundle under construction in `stage/bundle`."""

    uri: str
    stage: Path
    trust: Trust
    given: tuple[str, ...]
    row_wise: bool | None
    report: OnProgress
    compiling: CompileOptions = field(default_factory=CompileOptions)
    texts: CalibrationTexts | None = None
    allow_versions: bool = False
    progress: OnFraction | None = None
    timed_on: tuple[str, ...] = ()
    origins: list[Path] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    prediction: str | None = None  # of the example, while it was traced

    @property
    def folder(self) -> Path:
        return self.stage / "bundle"

    def fill(self, known: Sequence[Manifest] = ()) -> None:
        """Copy the model and everything that it opens."""
        self.report(f"fetching {without_secrets(self.uri)}")
        self.source = resolve(self.uri, self.folder / "model")
        self.origins += self.source.origins
        self.facts = read_model(self.folder / "model")
        self._warn_of_secrets()
        self.code = allows_code(self.trust, self.uri, self.source.resolved)
        require_trust(self.facts, self.code, self.trust, self.uri, self.source.resolved)
        if (note := compare_model(self.facts, code=self.code, allow=self.allow_versions)) is not None:
            self.report(note)
        given = {spelled(uri): "given" for uri in self.given}
        declared = {normal(uri): "declared" for uri in self.facts.references}
        references = {uri: via for uri, via in declared.items() if uri not in set(map(normal, given))}
        for uri, via in {**references, **given}.items():
            if via == "declared" and not self.code:
                _refuse_elsewhere(uri, self.uri)
            self._vendor(uri, via)
        self.rows = Rows.of(self.facts, self.row_wise)
        if self.code and self.facts.needs_code and not self._traced_before(known):
            self._trace()

    def _warn_of_secrets(self) -> None:
        for path in (self.folder / "model" / name for name in LOGGED_TEXTS):
            text = path.read_text(errors="replace") if path.is_file() else ""
            if redacted(text) != text:
                self.report(
                    f"the model's {path.name} contains a URI with user information or a query, and is copied as it is: "
                    "if that is secret, log the model again without it"
                )

    def seal(self) -> Bundle:
        """Write the manifest."""
        references = {r.uri: r for r in sorted(self.references, key=lambda r: r.uri)}
        kept = outermost({uri: self.folder / r.path for uri, r in references.items()})
        for uri in references.keys() - kept.keys():
            self._drop(references[uri], kept)
        self.manifest = Manifest(
            files={},
            references=tuple(references[uri] for uri in kept),
            signature_raw=self.facts.signature_raw,
            row_wise=self.rows.independent,
            pipeline=self.facts.pipeline,
            source=ModelSource(self.uri, self.source.resolved).clean,
            environment=self.facts.environment,
            engines=self._engines(),
            measured={"rows": self.rows.stored},
        )
        sealed = write_manifest(self.folder, self.manifest)
        self.manifest = sealed.manifest  # with its files
        return sealed

    @property
    def unmerged(self) -> Manifest:
        """The manifest that the bundle has if the example refutes the contract of its flavour."""
        return replace(self.manifest, row_wise=False)

    def made(self, bundle: Bundle) -> bool:
        """Whether `bundle` is of this model, with the rows that this build would give it."""
        if bundle.digest == self.manifest.digest:
            return True
        settled = self.rows.source == "contract" and rows_of(bundle.manifest).source in ("refuted", "untried")
        return settled and bundle.digest == self.unmerged.digest

    def found(self, target: Path) -> Bundle | None:
        """The bundle in the cache's folder `target`, if it can be used; it is not verified again."""
        if not is_bundle(target):
            return None
        try:
            bundle = open_bundle(target)
        except LikewiseError as error:
            self.report(f"rebuilding the cached bundle: {error.cause}")
            shutil.rmtree(target)
            return None
        return bundle if self.made(bundle) else None

    def _engines(self) -> tuple[EngineEntry, ...]:
        """Engines that run the model as logged; those that run its code only if the references have been determined."""
        traced_or_declared = self.code or self.facts.pipeline
        return tuple(entry for entry in self.facts.engines() if traced_or_declared or not runs_code(entry))

    def compile(self, sealed: Bundle) -> None:
        """Add the engines that can be compiled on this machine; the digest does not change."""
        work = self.stage / "compile"
        request = CompileRequest(
            self.compiling, self.texts, self.facts, work, self.report, self.progress, code=self.code
        )
        compiled = compile_engines(sealed, request)
        self.timed_on = compiled.texts
        self.manifest = replace(self.manifest, engines=(*compiled.entries, *self.manifest.engines))
        self.manifest = self.manifest.with_measured(**compiled.measured)
        write_manifest(self.folder, self.manifest)

    def prove(self) -> Bundle:
        """Verify the bundle in isolation, time its engines, and record both in the manifest."""
        self.report("verifying that the bundle works in isolation")
        hidden = [*_stores(self.origins), *_tracking_files()]
        proof = prove(
            self.folder,
            hidden=hidden,
            code=self.code,
            declared=self.rows.declared,
            measure=self.compiling.measure and not self.facts.pipeline,
            expected=self.prediction,
            progress=self.progress,
        )
        self._drop_engines(proof.dropped)
        self._settle_rows(proof)
        self.manifest = self.manifest.with_measured(
            proved=proof.isolation, proved_engines=list(proof.engines), proved_rows=proof.rows
        )
        if proof.speeds:
            speeds = {cpu_class(): dict(proof.speeds)}
            self.manifest = self.manifest.with_measured(speeds=speeds)
            if len(self.manifest.engines) - len(set(map(runs_code, self.manifest.engines))):  # they decide between two
                self.manifest = replace(self.manifest, rates=speeds)
        bundle = write_manifest(self.folder, self.manifest)
        rows = f"{proof.rows} example rows" if proof.rows else "no example"
        self.report(f"verified with {', '.join(proof.engines)} on {rows}, isolated by {proof.isolation}")
        if not proof.rows:
            self.report(
                "WARNING: without an input example no prediction was tried, and none will be before a deployment or an "
                "update serves, so only callers notice a model that fails; log it with input_example"
            )
        if self.timed_on and self.compiling.measure:
            self._measure(bundle)
        return bundle

    def _drop_engines(self, dropped: Mapping[str, str]) -> None:
        """Remove compiled engines that do not work in isolation."""
        for name, why in dropped.items():
            self.report(f"without the engine {name}: {why}")
        kept = tuple(entry for entry in self.manifest.engines if label(entry) not in dropped)
        for name in {entry.name for entry in self.manifest.engines} - {entry.name for entry in kept}:
            shutil.rmtree(self.folder / "engine" / name, ignore_errors=True)
        self.manifest = replace(self.manifest, engines=kept)

    def _settle_rows(self, proof: Proof) -> None:
        """Do not merge rows by contract if the example refutes it, or if the model's own code has not been tried."""
        if self.rows.source == "contract" and proof.refuted is not None:
            self.rows = Rows(False, "refuted", proof.refuted)
        elif self.rows.source == "contract" and not proof.tried and self.facts.needs_code:
            why = "it was logged without an example to try it on, and its own code may break its flavor's contract"
            self.rows = Rows(False, "untried", why)
        self.manifest = replace(self.manifest, row_wise=self.rows.independent).with_measured(rows=self.rows.stored)
        self.report(str(self.rows))

    def _measure(self, bundle: Bundle) -> None:
        self.report("measuring the engines on this CPU")
        try:
            measurement = measure(bundle, self.timed_on, progress=self.progress)
        except LikewiseError as error:  # the bundle is complete and verified; its engines can be measured later
            self.report(f"not measured: {error.cause}")
            return
        for name in measurement.differing:
            self.report(f"{name} gives a different prediction than fp32 for some text, and is ranked last")
        self.manifest = replace(self.manifest, rates={cpu_class(): dict(measurement.rates)})
        write_manifest(self.folder, self.manifest)

    def with_source(self, bundle: Bundle) -> Bundle:
        """`bundle`, which may have been built from another URI, with the source that this call requested."""
        return replace(bundle, manifest=replace(bundle.manifest, source=self.manifest.source))

    def _vendor(self, uri: str, via: str) -> None:
        name = normal(uri)
        self.report(f"vendoring {name}")
        path = _reference_path(name)
        if (self.folder / path).exists():  # given twice, with different user information
            again = self.stage / "again" / path
            resolve(uri, again)
            if not same_content(self.folder / path, again):
                raise ambiguous(name)
            return
        resolved = resolve(uri, self.folder / path)
        self.origins += resolved.origins
        self.references.append(Reference(name, path, via))

    def _drop(self, reference: Reference, kept: Mapping[str, Path]) -> None:
        """Remove a reference that is also in one of `kept`."""
        copy = self.folder / reference.path
        if any(spelled(uri) != normal(uri) for uri in self.given):  # then the two may differ
            other = lookup(kept, reference.uri)
            if other is None or not same_content(other, copy):
                raise ambiguous(reference.uri)
        shutil.rmtree(copy.parent)

    def _traced_before(self, known: Sequence[Manifest]) -> bool:
        """Vendor the references of an already traced model with the same bytes; False if a reference has changed.

        A file that a model opens may name the next file to open, so the old trace is only valid for unchanged files.
        """
        declared = len(self.references)
        for manifest in _of_same_model(self.folder, known):
            vendored = {r.uri for r in self.references}
            try:
                for uri in (r.uri for r in manifest.references if r.uri not in vendored):
                    self._vendor(uri, "traced")
                if _same_references(self.folder, manifest):
                    return True
            except (ModelNotFound, StoreUnreachable):  # the recorded URI may lack the password that the model has
                pass
            for reference in self.references[declared:]:
                shutil.rmtree((self.folder / reference.path).parent)
            del self.references[declared:]
        return False

    def _trace(self) -> None:
        self.report("tracing what the model opens while it loads")
        vendored = {r.uri: self.folder / r.path for r in self.references}
        source = without_secrets(self.uri)
        traced = trace(self.folder / "model", vendored, self.stage / "trace", source=source)
        self.origins += traced.origins
        self.prediction = traced.prediction
        for program in traced.programs:
            self.report(f"the model starts a program, whose file accesses cannot be traced: {program}")
        for path in traced.settings:
            self.report(f"the model reads settings of this machine, which the bundle does not contain: {path}")
        for uri, copy in traced.copies.items():
            self.report(f"vendoring {uri}")
            path = _reference_path(uri)
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            copy.rename(self.folder / path)
            self.references.append(Reference(uri, path, "traced"))


def allows_code(trust: Trust, uri: str, resolved: str) -> bool:
    """Whether the URI as typed is trusted, or another that it resolved to; for a path, the folder that was copied."""
    if local_path(uri) is not None:
        return trust.allows(folder=Path(resolved))
    return trust.allows(uri=uri) or (resolved != without_secrets(uri) and trust.allows(uri=resolved))


def require_trust(model: ModelFacts, code: bool, trust: Trust, uri: str, resolved: str) -> None:
    """Raise CodeNotTrusted if no engine can run `model` without its code, and `code` is False."""
    if model.needs_code and not code:
        path = None if local_path(uri) is None else Path(resolved)
        why = known_why_code(model.folder)
        trust.require(uri=uri if path is None else None, folder=path, what=f"the model {uri}", why=why)


def _refuse_elsewhere(reference: str, model: str) -> None:
    """Raise CodeNotTrusted for a declared reference to a local file or to a host, chosen by an untrusted author."""
    parts = urlparse(reference)
    if parts.scheme not in STORELESS or parts.netloc:  # not in the user's own tracking store
        raise CodeNotTrusted(
            f"the model {model} declares the reference {reference}, which is outside the tracking store, and copying "
            "it into the bundle has not been allowed",
            remedy=f"to include it, add --reference {reference}, or --trust if you trust the model's author",
        )


def _reference_path(uri: str) -> str:
    """`references/HASH/NAME`, which only depends on the URI."""
    return f"references/{hashlib.sha256(uri.encode()).hexdigest()[:12]}/{plain_name(uri)}"


def _stores(origins: Sequence[Path]) -> Iterator[Path]:
    """The local MLflow stores that copies came from, or the source folders if the store's root is not recognizable."""
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
        except LikewiseError:  # an invalid cached bundle is just not used here
            continue
    return manifests


def _of_same_model(folder: Path, known: Sequence[Manifest]) -> list[Manifest]:
    """The manifests of traced models with the same bytes as the one in `folder`."""
    model = {f"model/{name}": entry for name, entry in inventory(folder / "model").items()}
    return [m for m in known if not m.pipeline and model == _files_at("model", m.files)]


def _same_references(folder: Path, manifest: Manifest) -> bool:
    """Whether `folder` contains all references of `manifest` with the same bytes."""
    current = inventory(folder)
    return all(_files_at(r.path, current) == _files_at(r.path, manifest.files) for r in manifest.references)


def _files_at(path: str, files: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
    """The entries of the file `path`, or of all files below the folder `path`."""
    return {name: entry for name, entry in files.items() if name == path or name.startswith(path + "/")}


def _clean(report: OnProgress | None) -> OnProgress:
    """`report` without secrets, such as those in the command line of a program that the model starts."""
    return (lambda line: report(redacted(line))) if report else (lambda _: None)
