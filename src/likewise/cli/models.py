"""`bundle`, `inspect`, `trust`: what a model is made of, and whether its code may run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from likewise import api
from likewise.bundles import trust as trust_list
from likewise.bundles.format import Manifest
from likewise.bundles.open import Bundle
from likewise.cli.arguments import ModelArgument, TrustFlag
from likewise.cli.flags import argument, flag
from likewise.cli.screen import Screen
from likewise.core.errors import WrongUsage
from likewise.core.signature import Field
from likewise.engine.engine_options import CompileOptions
from likewise.engine.kinds import runs_code
from likewise.engine.rates import by_speed, cpu_class, known_rates, label

if TYPE_CHECKING:
    from likewise.engine.text.compiled import Calibration


def bundle(
    model: ModelArgument,
    output: Annotated[Path, flag("--output -o DIR", "The folder to make.")],
    reference: Annotated[
        list[str] | None,
        flag("--reference", "Something more that the model opens, which neither it nor a trace can tell. Repeatable."),
    ] = None,
    row_wise: Annotated[
        bool | None,
        flag(
            "--row-wise/--no-row-wise",
            "Declare that rows are independent of each other (or not), where the model does not say.",
        ),
    ] = None,
    *,
    compiling: CompileOptions,
    trust: TrustFlag = False,
    screen: Screen,
) -> None:
    """Make a self-contained bundle of MODEL, and prove that it opens with no network and no tracking server."""
    made = api.bundle(
        model,
        output,
        references=reference or (),
        row_wise=row_wise,
        compiling=compiling,
        trust=trust,
        report=screen.note,
    )
    screen.result(document(made), "Bundle", facts(made))


def inspect(
    model: ModelArgument,
    measure: Annotated[
        bool, flag("--measure", "Time its engines on this machine first, and remember that here.")
    ] = False,
    trust: TrustFlag = False,
    *,
    screen: Screen,
) -> None:
    """Show what MODEL's bundle holds: digest, signature, steps, references, environment, engines."""
    opened = api.find(model, trust=trust, report=screen.note)
    if measure:
        for name in api.measure(opened).differing:
            screen.note(f"{name} answers some text otherwise than fp32 does here, and comes after the others")
    screen.result(document(opened), "Bundle", facts(opened))


def trust(
    entry: Annotated[
        str | None, argument("PREFIX-OR-DIGEST", "models:/NAME, a folder, or a bundle's sha256:… digest.")
    ] = None,
    remove: Annotated[bool, flag("--remove", "Take the entry back.")] = False,
    list_: Annotated[bool, flag("--list", "Only show the entries.")] = False,
    *,
    screen: Screen,
) -> None:
    """Remember that the code of these models may run; without an entry, show what is remembered."""
    if entry is None and remove:
        raise WrongUsage("--remove needs an entry", remedy="likewise trust --list shows the entries")
    if entry is None or list_:
        entries = trust_list.remembered()
    else:
        entries = trust_list.forget(entry) if remove else trust_list.remember(entry)
    shown = [(e.prefix, _trusted(e)) for e in entries] or [("nothing", "no model's code may run unasked")]
    screen.result({"trusted": [asdict(e) for e in entries]}, "Trusted", shown)


def _trusted(entry: trust_list.TrustEntry) -> str:
    if entry.store is None:
        return "bundle" if entry.prefix.startswith("sha256:") else "URIs that begin so"
    return f"URIs that begin so, in {entry.store}" + ("" if entry.counts else " (not the store that is asked now)")


def document(bundle: Bundle) -> dict[str, object]:
    """The manifest, for `--json`."""
    manifest = bundle.manifest
    return {
        "path": str(bundle.path.resolve()),
        "digest": bundle.digest,
        "signature": manifest.signature_raw,
        "row_wise": manifest.row_wise,
        "pipeline": manifest.pipeline,
        "references": [asdict(r) for r in manifest.references],
        "environment": asdict(manifest.environment),
        "engines": [asdict(e) for e in manifest.engines],
        "source": asdict(manifest.source),
        "calibration": {uri: asdict(found) for uri, found in _calibrations(bundle).items()},
        "cpu": cpu_class(),
        "rates": known_rates(manifest),
        "measured": dict(manifest.measured),
        "bytes": sum(f.size for f in manifest.files.values()),
    }


def facts(bundle: Bundle) -> list[tuple[str, str]]:
    """The manifest as lines to read."""
    manifest, signature = bundle.manifest, bundle.signature
    lines = [
        ("path", str(bundle.path)),
        ("digest", bundle.digest),
        ("made from", _source(bundle)),
        ("takes", _fields(signature.inputs)),
        ("gives", _fields(signature.outputs)),
        (
            "rows",
            "independent: merged across callers" if manifest.row_wise else "may depend on each other: never merged",
        ),
        *[("step", s) for s in _steps(manifest.pipeline)],
        *[("carries", f"{r.uri} ({r.via})") for r in manifest.references],
        ("environment", _environment(bundle)),
        *[("engine", line) for line in _engines(manifest)],
        *[("bf16", f"{found} ({uri})") for uri, found in _calibrations(bundle).items()],
        ("size", f"{sum(f.size for f in manifest.files.values()) / 1e6:.1f} MB in {len(manifest.files)} files"),
    ]
    proved = manifest.measured.get("proved")
    return [*lines, ("proved", _proof(manifest.measured))] if proved else lines


def _calibrations(bundle: Bundle) -> dict[str, Calibration]:
    from likewise.pipeline.engine import calibrations  # numpy and tokenizers, which other commands need not load

    return calibrations(bundle)


def _engines(manifest: Manifest) -> list[str]:
    """In the order in which they are tried here, with their speed on such a CPU where anybody has measured it."""
    rates = known_rates(manifest)
    lines = []
    for entry in by_speed(manifest.engines, rates):
        speed = f", {rates[label(entry)]:,.0f} rows/s on this kind of CPU" if label(entry) in rates else ""
        lines.append(label(entry) + speed + (" (runs the model's code)" if runs_code(entry) else ""))
    return lines


def _proof(measured: Mapping[str, object]) -> str:
    engines = measured.get("proved_engines")
    by = ", ".join(map(str, engines)) if isinstance(engines, list | tuple) else "its engines"
    return f"answers {measured.get('proved_rows', 0)} example rows alone, by {by}; cut off by {measured['proved']}"


def _source(bundle: Bundle) -> str:
    source = bundle.manifest.source
    return source.uri if source.uri == source.resolved else f"{source.uri} = {source.resolved}"


def _fields(fields: tuple[Field, ...] | None) -> str:
    return ", ".join(f"{f.name or '(unnamed)'}: {f.kind}" for f in fields) if fields else "not declared"


def _steps(pipeline: object) -> list[str]:
    steps = pipeline.get("steps", []) if isinstance(pipeline, dict) else []
    return [f"{s['step']}" + "".join(f" {k}={v}" for k, v in s.items() if k != "step") for s in steps]


def _environment(bundle: Bundle) -> str:
    held = bundle.manifest.environment
    return f"Python {held.python or 'not declared'}; " + (", ".join(held.requirements) or "no requirements")
