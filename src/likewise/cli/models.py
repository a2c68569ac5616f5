"""Commands for models: `bundle`, `inspect` and `trust`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from likewise import api
from likewise.bundles import trust as trust_list
from likewise.bundles.format import Manifest
from likewise.bundles.open import Bundle
from likewise.cli.arguments import AllowVersionsFlag, EnvFlag, ModelArgument, TrustFlag
from likewise.cli.environment import enter
from likewise.cli.flags import argument, flag
from likewise.cli.screen import Screen
from likewise.core.bounds import stated as stated_bound
from likewise.core.errors import WrongUsage
from likewise.core.signature import Field
from likewise.engine.accelerate.agreement import agreements_of
from likewise.engine.engine_options import CompileOptions
from likewise.engine.kinds import logged_libraries, runs_code
from likewise.engine.rates import by_speed, cpu_class, known_rates, label
from likewise.engine.versions import Versions, versions_of

if TYPE_CHECKING:
    from likewise.engine.text.compiled import Calibration


def bundle(
    model: ModelArgument,
    output: Annotated[Path, flag("--output -o DIR", "Folder to create.")],
    reference: Annotated[
        list[str] | None,
        flag(
            "--reference",
            "URI of another model or file that the model loads and that is not detected automatically. Repeatable.",
        ),
    ] = None,
    row_wise: Annotated[
        bool | None,
        flag(
            "--row-wise/--no-row-wise",
            "Declare that each prediction depends only on its own row (or not); then requests share batches. By "
            "default the model's metadata decides, else the contract of its flavor, unless the example refutes it.",
        ),
    ] = None,
    *,
    compiling: CompileOptions,
    trust: TrustFlag = False,
    allow_versions: AllowVersionsFlag = False,
    env: EnvFlag = False,
    screen: Screen,
) -> None:
    """Create a self-contained bundle of MODEL and verify that it loads without a network or a tracking server."""
    if env:
        enter(model, trust=trust, allow_versions=allow_versions, report=screen.note)
    created = api.bundle(
        model,
        output,
        references=reference or (),
        row_wise=row_wise,
        compiling=compiling,
        trust=trust,
        allow_versions=allow_versions,
        report=screen.note,
    )
    screen.result(document(created), "Bundle", facts(created))


def inspect(
    model: ModelArgument,
    measure: Annotated[
        bool,
        flag("--measure", "First measure the speed of the bundle's engines, and store the result on this machine."),
    ] = False,
    trust: TrustFlag = False,
    allow_versions: AllowVersionsFlag = False,
    env: EnvFlag = False,
    *,
    screen: Screen,
) -> None:
    """Show the contents of MODEL's bundle: digest, signature, steps, references, environment, engines."""
    if env:
        enter(model, trust=trust, allow_versions=allow_versions, report=screen.note)
    opened = api.find(model, trust=trust, allow_versions=allow_versions, report=screen.note)
    if measure:
        measured = api.measure(opened)
        pools = ", ".join(f"{name} {count}" for name, count in measured.pools.items())
        screen.note(f"threads: {pools or 'no pools found'} (docs/threads.md)")
        for name in measured.differing:
            screen.note(f"{name} predicts some texts differently from fp32 on this machine, so it is used last")
    screen.result(document(opened), "Bundle", facts(opened))


def trust(
    entry: Annotated[
        str | None,
        argument(
            "PREFIX-OR-DIGEST",
            "URI prefix (models:/NAME for all versions), a folder, or a bundle's build digest (sha256:…).",
        ),
    ] = None,
    remove: Annotated[bool, flag("--remove", "Remove the entry from the list.")] = False,
    list_: Annotated[bool, flag("--list", "Show the list without changing it.")] = False,
    everything: Annotated[
        bool, flag("--everything", "Accept an entry that covers a whole store, host, home or temporary folder.")
    ] = False,
    *,
    screen: Screen,
) -> None:
    """Add models to the list of those whose own Python code may run. Without an argument, show the list."""
    if entry is None and (remove or everything):
        name = "--remove" if remove else "--everything"
        raise WrongUsage(f"{name} needs an entry", remedy="run likewise trust --list to see the entries")
    if entry is None or list_:
        entries = trust_list.remembered()
    elif remove:
        entries = trust_list.forget(entry)
    else:
        entries = trust_list.remember(entry, everything=everything)
        _warn(entry, screen)
    lines = [(_scope(e), e.prefix) for e in entries] or [("nothing", "no model's code may run without --trust")]
    screen.result({"trusted": [asdict(e) for e in entries]}, "Trusted", lines)


def _warn(entry: str, screen: Screen) -> None:
    """Say how much has just been trusted, if that is everything or if another user may change it."""
    if (scope := trust_list.too_wide(entry)) is not None:
        screen.note(f"warning: from now on {scope} may run code; undo it with: likewise trust --remove {entry}")
    if (part := trust_list.changeable(entry)) is not None:
        screen.note(
            f"warning: other users may change or replace {part}, and so decide what code runs; to prevent it, give the "
            f"folder to yourself (chown) and run: chmod go-w {part}"
        )


def _scope(entry: trust_list.TrustEntry) -> str:
    """What an entry of the trust list applies to."""
    if entry.prefix.startswith("sha256:"):
        return "bundle"
    wide = trust_list.too_wide(entry.prefix)
    scope = "URIs with this prefix" if wide is None else f"EVERYTHING: {wide} may run code"
    if entry.store is None:
        return scope
    return f"{scope}, in {entry.store}" + ("" if entry.counts else " (not the current store)")


def document(bundle: Bundle) -> dict[str, object]:
    """The bundle's manifest with this machine's measurements, as the JSON object that `--json` prints."""
    manifest = bundle.manifest
    return {
        "path": str(bundle.path.resolve()),
        "digest": bundle.digest,
        "build": bundle.build,
        "lacks": manifest.lacks,
        "signature": manifest.signature_raw,
        "row_wise": manifest.row_wise,
        "pipeline": manifest.pipeline,
        "references": [asdict(r) for r in manifest.references],
        "environment": asdict(manifest.environment),
        "versions": _versions(bundle).as_dict(),
        "engines": [{**asdict(e), "runs_code": runs_code(e)} for e in manifest.engines],
        "source": asdict(manifest.source.clean),
        "calibration": {uri: asdict(calibration) for uri, calibration in _calibrations(bundle).items()},
        "cpu": cpu_class(),
        "rates": known_rates(manifest),
        "measured": dict(manifest.measured),
        "bytes": sum(f.size for f in manifest.files.values()),
    }


def facts(bundle: Bundle) -> list[tuple[str, str]]:
    """The manifest as pairs of a name and a text, for the table."""
    manifest, signature = bundle.manifest, bundle.signature
    lines = [
        ("path", str(bundle.path)),
        ("model digest", bundle.digest),
        ("build digest", bundle.build),
        *([("lacks", manifest.lacks)] if manifest.lacks else []),
        ("source", _source(bundle)),
        ("inputs", _fields(signature.inputs)),
        ("outputs", _fields(signature.outputs)),
        (
            "rows",
            "independent: batched across requests" if manifest.row_wise else "may depend on each other: never batched",
        ),
        *[("step", s) for s in _steps(manifest.pipeline)],
        *[("includes", f"{r.uri} ({r.via})") for r in manifest.references],
        ("environment", _environment(bundle)),
        *([("versions", note)] if (note := _versions(bundle).note) else []),
        *[("engine", line) for line in _engines(manifest)],
        *([("selected", api.selected(bundle))] if isinstance(bundle, api.Bundle) and manifest.engines else []),
        *[("bf16", f"{calibration} ({uri})") for uri, calibration in _calibrations(bundle).items()],
        *([("bf16", _agreement(stated))] if isinstance(stated := manifest.measured.get("bf16"), Mapping) else []),
        *[("agreement", f"{name}: {each}") for name, each in agreements_of(manifest).items()],
        *[("not compiled", str(cause)) for cause in _listed(manifest.measured.get("not_compiled"))],
        ("size", f"{sum(f.size for f in manifest.files.values()) / 1e6:.1f} MB in {len(manifest.files)} files"),
    ]
    proved = manifest.measured.get("proved")
    return [*lines, ("verified", _proof(manifest.measured))] if proved else lines


def _versions(bundle: Bundle) -> Versions:
    """How this environment differs from the logged one, if an engine of the bundle needs the model's own libraries."""
    return versions_of(bundle) if any(map(logged_libraries, bundle.manifest.engines)) else Versions()


def _calibrations(bundle: Bundle) -> dict[str, Calibration]:
    from likewise.pipeline.engine import calibrations  # loads numpy and tokenizers, which other commands do not need

    return calibrations(bundle)


def _engines(manifest: Manifest) -> list[str]:
    """The engines in the order in which they are tried here, with their speed on this kind of CPU if it is known."""
    rates = known_rates(manifest)
    lines = []
    for entry in by_speed(manifest.engines, rates):
        speed = f", {rates[label(entry)]:,.0f} rows/s on this kind of CPU" if label(entry) in rates else ""
        lines.append(label(entry) + speed + (" (runs the model's code)" if runs_code(entry) else ""))
    return lines


def _agreement(stated: Mapping[str, object]) -> str:
    return (
        f"changes the numbers for {stated['rows']} example rows by up to {stated['difference']:.2g} of the largest "
        f"(tolerance {stated['tolerance']:g}); of all rows {stated_bound(0, int(str(stated['rows'])))} by more"
    )


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def _proof(measured: Mapping[str, object]) -> str:
    engines = measured.get("proved_engines")
    names = ", ".join(map(str, engines)) if isinstance(engines, list | tuple) else "its engines"
    rows = measured.get("proved_rows", 0)
    return f"predicts {rows} example rows in isolation, with {names}; isolated by {measured['proved']}"


def _source(bundle: Bundle) -> str:
    source = bundle.manifest.source.clean
    return source.uri if source.uri == source.resolved else f"{source.uri} = {source.resolved}"


def _fields(fields: tuple[Field, ...] | None) -> str:
    return ", ".join(f"{f.name or '(unnamed)'}: {f.kind}" for f in fields) if fields else "not declared"


def _steps(pipeline: object) -> list[str]:
    steps = pipeline.get("steps", []) if isinstance(pipeline, dict) else []
    return [f"{s['step']}" + "".join(f" {k}={v}" for k, v in s.items() if k != "step") for s in steps]


def _environment(bundle: Bundle) -> str:
    environment = bundle.manifest.environment
    packages = ", ".join(environment.requirements) or "no requirements"
    return f"Python {environment.python or 'not declared'}; {packages}"
