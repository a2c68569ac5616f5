"""A deployment as a Serve config file, for `serve deploy FILE` and for KubeRay's `serveConfigV2`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from likewise.batch.s3 import SCHEME
from likewise.bundles.open import Bundle, open_bundle
from likewise.core.errors import WrongUsage
from likewise.core.extras import need
from likewise.core.spec import ModelSpec
from likewise.engine.kinds import kind_of
from likewise.shipping.payload import manifest_key, trusted_engine
from likewise.targets.ray.application import require_known
from likewise.targets.ray.inspection import APP, DEPLOYMENT
from likewise.targets.ray.ray_options import OWN, RayOptions

BUILDER = "likewise.targets.ray.stored:application"
HEADER = """\
# {name}, made by Likewise {version} of {source}
# for `serve deploy FILE`, or as the serveConfigV2 of a RayService on Kubernetes.
#
# Every node needs Likewise, and what the model's engine needs:
#   pip install {install}
# Every node reads the bundle at {place}
# and serves it only where every byte of it is that of {digest}.
# Where Ray Serve does not run yet, it is started on all addresses, port 8000, unless this file gets http_options.
"""


def written(name: str, model: ModelSpec, options: RayOptions, place: str | None = None) -> str:
    """The file's text, YAML with comments; no cluster is asked.

    place: where the nodes read the bundle, a folder or `s3://BUCKET/PREFIX`; None: where it lies here.
    Raises WrongUsage (an option that Ray refuses, or that only `likewise deploy` itself could heed), MissingExtra,
    CodeNotTrusted, EngineUnavailable, and what `open_bundle` raises.
    """
    yaml = need("yaml", extra="ray")
    bundle, where = open_bundle(model.folder), _place(place or str(model.folder.resolve()))
    document = _document(name, model, options, {"bundle": where, "key": manifest_key(bundle)})
    install = _installs(bundle, model, where)
    about = {"name": name, "version": version("likewise"), "source": model.source, "digest": bundle.digest}
    header = HEADER.format(install=install, place=where, **about)
    return header + str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def _document(name: str, model: ModelSpec, options: RayOptions, bundle: Mapping[str, str]) -> dict[str, Any]:
    """As Ray's ServeDeploySchema has it; what its deployments lack goes to the builder."""
    _require_in_file(options)
    schema, given = need("ray.serve.schema", extra="ray"), options.deployment()
    require_known(options)
    in_place = {key: value for key, value in given.items() if key in schema.DeploymentSchema.model_fields}
    rest = {key: value for key, value in given.items() if key not in in_place}
    args = {**bundle, "model": model.portable(), "server": options.server(), "deployment": rest}
    application = {
        "name": APP + name,
        "route_prefix": options.prefix(name),
        "import_path": BUILDER,
        "args": args,
        "deployments": [{"name": DEPLOYMENT, **in_place}],
    }
    document = {"applications": [application]}
    try:
        schema.ServeDeploySchema.model_validate(document)
        need("ray.serve", extra="ray").deployment(**given)(type("Replica", (), {}))
    except (ValueError, TypeError) as error:  # pydantic's are ValueErrors
        raise WrongUsage(f"Ray refuses the options: {error}", remedy="see docs/ray.md for what Ray takes") from error
    return document


def _require_in_file(options: RayOptions) -> None:
    """WrongUsage for what nobody would heed: `serve deploy` waits, watches and takes back as it likes."""
    default = asdict(RayOptions())
    lost = [key for key in sorted(OWN - {"route_prefix"}) if getattr(options, key) != default[key]]
    if lost:
        raise WrongUsage(
            f"a Serve config file has no place for {', '.join(lost)}",
            remedy="leave it out, or deploy with `likewise deploy`, which heeds it",
        )


def _place(place: str) -> str:
    """As a replica takes it."""
    if place.startswith(SCHEME) or ("://" not in place and Path(place).is_absolute()):
        return place.rstrip("/")
    raise WrongUsage(
        f"nodes cannot read a bundle at {place!r}", remedy="name a folder from the root on, or s3://BUCKET/PREFIX"
    )


def _installs(bundle: Bundle, model: ModelSpec, place: str) -> str:
    """What a node lacks, as arguments of pip; CodeNotTrusted."""
    kind, own = kind_of(trusted_engine(bundle, model).name), "likewise["
    extras = [each.removeprefix(own).rstrip("]") for each in kind.requirements if each.startswith(own)]
    extras = ["ray", *extras, *(["batch"] * place.startswith(SCHEME))]
    others = [each for each in kind.requirements if not each.startswith(own)]
    wanted = " ".join(f"'{each}'" for each in (f"{own}{','.join(extras)}]=={version('likewise')}", *others))
    if not kind.runs_code:
        return wanted
    return f"{wanted} -r {bundle.model_path / 'requirements.txt'}"
