"""The payload that is sent to workers: the bundle as an archive, and the environment that its engine needs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from likewise.bundles.archive import pack
from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.bundles.trust import Trust
from likewise.core.digests import sha256_bytes
from likewise.core.errors import EngineUnavailable
from likewise.core.spec import ModelSpec
from likewise.engine.engine_options import EngineOptions
from likewise.engine.kinds import kind_of, runs_code
from likewise.engine.rates import by_speed, known_rates
from likewise.shipping.environment import PackedEnvironment, cached_archive, environment
from likewise.shipping.requirements import plain_requirements


def engine_of(bundle: Bundle, options: EngineOptions, *, trusted: bool) -> EngineEntry:
    """The engine that workers will most likely run: the fastest here; one that runs code only if it is trusted.

    EngineUnavailable if the bundle has no engine that matches `options`.
    """
    entries = by_speed([e for e in bundle.manifest.engines if options.takes(e)], known_rates(bundle.manifest))
    if not entries:
        raise EngineUnavailable(f"the bundle has no engine {options}", remedy=f"likewise inspect {bundle.path}")
    return next((entry for entry in entries if trusted or not runs_code(entry)), entries[0])


def trusted_engine(bundle: Bundle, model: ModelSpec) -> EngineEntry:
    """`engine_of` for `model`; CodeNotTrusted if only engines that run the model's code match and it is not trusted."""
    entry = engine_of(bundle, EngineOptions.of(model), trusted=model.trust)
    if runs_code(entry):
        Trust(allow=model.trust, entries=()).require_bundle(bundle)
    return entry


def environment_of(bundle: Bundle, engine: EngineEntry, preinstalled: frozenset[str]) -> PackedEnvironment:
    """The environment of `engine`, with the model's own requirements if it runs code; raises as `environment` does.

    preinstalled: packages that every worker has.
    """
    return environment(requirements_of(bundle, engine), preinstalled)


def requirements_of(bundle: Bundle, engine: EngineEntry) -> list[str]:
    """The requirements of `engine`, Likewise first, and the model's own if its code runs.

    Raises WrongUsage as `plain_requirements` does; the model's requirements are not read if its code does not run.
    """
    kind = kind_of(engine.name)
    own = plain_requirements(bundle.manifest.environment.requirements) if kind.runs_code else []
    return ["likewise", *kind.requirements, *own]


def manifest_key(bundle: Bundle) -> str:
    """The digest of the bundle's whole manifest, engines included, as 64 hex digits."""
    return sha256_bytes(bundle.manifest.dump())[7:]


def archive_of(bundle: Bundle, folder: Path) -> Path:
    """The bundle's archive in `folder`, created unless it exists; the same bytes for the same bundle."""
    # not .tar.gz: Spark unpacks files with that suffix into the executors' import path
    return cached_archive(folder / f"likewise-model-{manifest_key(bundle)}.archive", partial(pack, bundle))
