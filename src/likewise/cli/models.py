"""Commands for models: `bundle`, `inspect` and `trust`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from likewise import api
from likewise.bundles import trust as trust_list
from likewise.cli.arguments import AllowVersionsFlag, EnvFlag, ModelArgument, TrustFlag
from likewise.cli.environment import enter
from likewise.cli.flags import argument, flag
from likewise.cli.screen import Screen
from likewise.core.errors import WrongUsage
from likewise.description import document, facts
from likewise.engine.engine_options import CompileOptions
from likewise.engine.kinds import runs_code


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
    with screen.working():
        created = api.bundle(
            model,
            output,
            references=reference or (),
            row_wise=row_wise,
            compiling=compiling,
            trust=trust,
            allow_versions=allow_versions,
            report=screen.note,
            progress=screen.completed,
        )
    screen.result(document(created), "Bundle", _facts(created))
    if not trust_list.Trust().allows_bundle(created) and all(map(runs_code, created.manifest.engines)):
        screen.note(
            "the bundle runs only with --trust; to allow its code from now on:",
            command=f"likewise trust {created.build}",
        )


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
        with screen.working():
            screen.note("measuring the engines on this CPU")
            measured = api.measure(opened, screen.completed)
        pools = ", ".join(f"{name} {count}" for name, count in measured.pools.items())
        screen.note(f"threads: {pools or 'no pools found'} (docs/threads.md)")
        for name in measured.differing:
            screen.note(f"{name} predicts some texts differently from fp32 on this machine, so it is used last")
    screen.result(document(opened), "Bundle", _facts(opened))


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


def _facts(bundle: api.Bundle) -> list[tuple[str, str]]:
    return facts(bundle, api.selected(bundle) if bundle.manifest.engines else None)
