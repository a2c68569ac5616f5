"""The payload that is sent to workers: the bundle as an archive, and the environment that its engine needs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from likewise.bundles.archive import pack
from likewise.bundles.format import EngineEntry
from likewise.bundles.open import Bundle
from likewise.core.digests import PREFIX
from likewise.engine.kinds import kind_of
from likewise.engine.requirements import plain_requirements
from likewise.shipping.environment import PackedEnvironment, cached_archive, environment


def environment_of(
    bundle: Bundle, engine: EngineEntry, preinstalled: frozenset[str], extras: Sequence[str] = ()
) -> PackedEnvironment:
    """The environment of `engine`, with those of the model's requirements that it needs; raises as `environment` does.

    preinstalled: packages that every worker has.  extras: of Likewise, in addition.
    """
    own = [f"likewise[{extra}]" for extra in extras]
    return environment([*own, *requirements_of(bundle, engine)], preinstalled)


def requirements_of(bundle: Bundle, engine: EngineEntry) -> list[str]:
    """The requirements of `engine`, Likewise first, and those of the model that it needs; all of them if code runs.

    Raises WrongUsage as `plain_requirements` does, for the lines that the engine needs.
    """
    kind = kind_of(engine.name)
    own = plain_requirements(kind.libraries(bundle.manifest.environment.requirements))
    return ["likewise", *kind.requirements, *own]


def build_key(bundle: Bundle) -> str:
    """The build digest as 64 hex digits, which identifies the bundle's archive."""
    return bundle.build.removeprefix(PREFIX)


def archive_of(bundle: Bundle, folder: Path) -> Path:
    """The bundle's archive in `folder`, created unless it exists; the same bytes for the same bundle."""
    # not .tar.gz: Spark unpacks files with that suffix into the executors' import path
    return cached_archive(folder / f"likewise-model-{build_key(bundle)}.archive", partial(pack, bundle))
