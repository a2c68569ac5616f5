"""Values that the shell completes: deployments, targets, options of targets, bundles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path

import typer

Complete = Callable[[str], list[str]]


def _starting(candidates: Callable[[], Iterable[str]]) -> Complete:
    """Completes what `candidates` returns; nothing if that fails, because a shell cannot show errors."""

    def complete(incomplete: str) -> list[str]:
        try:
            return [each for each in candidates() if each.startswith(incomplete)]
        except Exception:  # noqa: BLE001  it would appear in the middle of what the user types
            return []

    return complete


def _deployments() -> Iterable[str]:
    from likewise.receipts import Receipts

    return dict.fromkeys(record.name for record in Receipts().records())


def _targets() -> Iterable[str]:
    from likewise.targets.registry import names

    return names()


def _bundles() -> Iterable[str]:
    from likewise.bundles.open import is_bundle

    folders = (each for each in sorted(Path().iterdir()) if is_bundle(each))
    return [*map(str, folders), "models:/", "runs:/"]


def _runners() -> Iterable[str]:
    from likewise.batch.runners import names

    return names()


deployment, target, model, runner = map(_starting, (_deployments, _targets, _bundles, _runners))
backend = _starting(lambda: [*_deployments(), *_runners(), "mlflow", "mlflow-serve", "image:"])


def config(context: typer.Context, incomplete: str) -> list[str]:
    """`KEY=` for the options of the target in --to."""
    from likewise.targets.registry import open_target

    to = context.params.get("to")
    return _starting(lambda: [f"{each.name}=" for each in fields(open_target(to).Options)] if to else [])(incomplete)
