"""The content of a bundle, as `inspect` and notebooks show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.filesize import decimal

from likewise.bundles.format import Manifest
from likewise.bundles.open import Bundle
from likewise.core.bounds import stated as stated_bound
from likewise.core.signature import Field
from likewise.engine.accelerate.agreement import agreements_of
from likewise.engine.kinds import logged_libraries, runs_code
from likewise.engine.rates import by_speed, cpu_class, known_rates, label
from likewise.engine.text.compiled import Calibration
from likewise.engine.versions import Versions, versions_of


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


def facts(bundle: Bundle, selected: str | None = None) -> list[tuple[str, str]]:
    """The manifest as names and values for people.  selected: which engine is used, if that is known."""
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
        *([("selected", selected)] if selected else []),
        *[("bf16", f"{calibration} ({uri})") for uri, calibration in _calibrations(bundle).items()],
        *([("bf16", _agreement(stated))] if isinstance(stated := manifest.measured.get("bf16"), Mapping) else []),
        *[("agreement", f"{name}: {each}") for name, each in agreements_of(manifest).items()],
        *[("not compiled", str(cause)) for cause in _listed(manifest.measured.get("not_compiled"))],
        ("size", f"{decimal(sum(f.size for f in manifest.files.values()))} in {len(manifest.files)} files"),
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
    if not rows:
        return f"loads in isolation, with {names}; without an input example, no prediction was tried"
    return f"predicts {rows} example rows in isolation, with {names}; isolated by {measured['proved']}"


def _source(bundle: Bundle) -> str:
    source = bundle.manifest.source.clean
    return source.uri if source.uri == source.resolved else f"{source.uri} = {source.resolved}"


def _fields(fields: tuple[Field, ...] | None) -> str:
    shown = [f"{f.name or '(unnamed)'}: {f.kind}{'' if f.required else ' (optional)'}" for f in fields or ()]
    return ", ".join(shown) or "not declared"


def _steps(pipeline: object) -> list[str]:
    steps = pipeline.get("steps", []) if isinstance(pipeline, dict) else []
    return [f"{s['step']}" + "".join(f" {k}={v}" for k, v in s.items() if k != "step") for s in steps]


def _environment(bundle: Bundle) -> str:
    environment = bundle.manifest.environment
    packages = ", ".join(environment.requirements) or "no requirements"
    return f"Python {environment.python or 'not declared'}; {packages}"
