"""Reads what a model was logged with, before it is bundled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from likewise.builder.bundle import allows_code, require_trust
from likewise.builder.resolve import resolve
from likewise.bundles.trust import Trust
from likewise.core.scratch import scratch_folder
from likewise.engine.kinds import ModelFacts
from likewise.pipeline.mlmodel import read_model


@contextmanager
def fetched(uri: str, trust: Trust) -> Iterator[tuple[ModelFacts, bool]]:
    """The model `uri`, copied to a temporary folder, and whether its code may run; none of it runs here.

    Raises CodeNotTrusted (only its own code can run it, and may not), and what `resolve` and `read_model` raise.
    """
    with scratch_folder("likewise-scratch-model-") as folder:
        source = resolve(uri, folder / "model")
        facts = read_model(folder / "model")
        code = allows_code(trust, uri, source.resolved)
        require_trust(facts, code, trust, uri, source.resolved)
        yield facts, code
