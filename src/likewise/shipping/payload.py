"""What travels to workers: the bundle as an archive, and the environment that its engine needs."""

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
from likewise.shipping.environment import PackedEnvironment, environment, kept


def engine_of(bundle: Bundle, options: EngineOptions, *, trusted: bool) -> EngineEntry:
    """What the workers will most likely run: the fastest engine here, one that runs code only if it is trusted.

    EngineUnavailable where the bundle has none such.
    """
    entries = by_speed([e for e in bundle.manifest.engines if options.takes(e)], known_rates(bundle.manifest))
    if not entries:
        raise EngineUnavailable(f"the bundle has no engine {options}", remedy=f"likewise inspect {bundle.path}")
    return next((entry for entry in entries if trusted or not runs_code(entry)), entries[0])


def trusted_engine(bundle: Bundle, model: ModelSpec) -> EngineEntry:
    """`engine_of` for `model`; CodeNotTrusted where only engines that run its code would do, and it is not trusted."""
    entry = engine_of(bundle, EngineOptions.of(model), trusted=model.trust)
    if runs_code(entry):
        Trust(allow=model.trust, entries=()).require_bundle(bundle)
    return entry


def environment_of(bundle: Bundle, engine: EngineEntry, theirs: frozenset[str]) -> PackedEnvironment:
    """What `engine` needs, and the model's own requirements where it runs code; raises what `environment` does.

    theirs: packages that every worker has.
    """
    return environment(requirements_of(bundle, engine), theirs)


def requirements_of(bundle: Bundle, engine: EngineEntry) -> list[str]:
    """What `engine` needs installed, Likewise first, and the model's own where its code runs; no options of pip."""
    kind = kind_of(engine.name)
    lines = bundle.manifest.environment.requirements if kind.runs_code else ()
    theirs = [line for line in lines if line.strip() and not line.lstrip().startswith(("#", "-"))]
    return ["likewise", *kind.requirements, *theirs]


def manifest_key(bundle: Bundle) -> str:
    """The digest of all that the bundle's manifest says, engines included, as 64 hex digits."""
    return sha256_bytes(bundle.manifest.dump())[7:]


def archive_of(bundle: Bundle, folder: Path) -> Path:
    """The bundle's archive in `folder`, made unless it is there; the same bytes for the same bundle."""
    # a name that Spark does not know: what ends in .tar.gz it unpacks into the executors' import path
    return kept(folder / f"likewise-model-{manifest_key(bundle)}.archive", partial(pack, bundle))
