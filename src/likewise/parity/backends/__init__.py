"""What `--against` names: the backends that can predict a golden set, each through its own interface and types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from likewise import deployments
from likewise.batch import runners
from likewise.batch.formats import format_of
from likewise.core.errors import InputNotFound, NotDeployed, WrongUsage
from likewise.core.option_fields import nearest
from likewise.core.uris import redacted
from likewise.parity.backends import jobs, mlflow, scored, services
from likewise.parity.backends.requests import Post
from likewise.parity.comparison import Comparison
from likewise.parity.verify_options import VerifyOptions
from likewise.targets.base import Receipt

IMAGE, SPARK = "image:", "spark://"
_NAMES: dict[str, Callable[[Comparison], None]] = {
    "mlflow": mlflow.predict_with_pyfunc,
    "mlflow-serve": mlflow.predict_with_server,
    "ray": services.predict_on_ray,
}


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend.

    name: as given, without passwords.  predict: fills in the answers of a comparison; raises LikewiseError if the
    backend fails, with the answers up to then.  job: whether it is a job, or a file that one wrote.  code: whether it
    runs the model's code with MLflow.  scored: the file that a job wrote.
    """

    name: str
    predict: Callable[[Comparison], None]
    job: bool = False
    code: bool = False
    scored: str | None = None


def backend(where: str, options: VerifyOptions) -> Backend:
    """The backend that `where` names; connects to nothing but the target of a deployment that is not recorded here.

    Raises NotDeployed for an unknown name, InputNotFound for a file that does not exist, WrongUsage.
    """
    if where in _NAMES:
        return Backend(where, _NAMES[where], code=where.startswith("mlflow"))
    if where in runners.names():
        return Backend(where, partial(jobs.predict, where, None), job=True)
    if where.startswith(SPARK):
        return Backend(where, partial(jobs.predict, "spark", where), job=True)
    if where.startswith(IMAGE) and len(where) > len(IMAGE):
        return Backend(where, partial(services.predict_in_container, where.removeprefix(IMAGE)))
    if where.startswith(("http://", "https://")):
        return Backend(redacted(where), partial(services.predict_at, where, options))
    name, on, _ = where.partition("@")
    on_target = on and "/" not in name and not Path(where).exists()  # the URI of a target may have slashes
    if not on_target and "://" in where:
        raise WrongUsage(f"{redacted(where)} is not a backend", remedy=_KNOWN)
    if not on_target and ("/" in where or format_of(where) is not None):
        if not Path(where).exists():
            raise InputNotFound(f"there is no file or folder {where}", remedy=_KNOWN)
        return Backend(where, partial(scored.predict, where), job=True, scored=where)
    return Backend(where, partial(services.predict_deployed, _receipt_of(where)))


_KNOWN = (
    "name a deployment (`likewise list` shows them), a URL, image:NAME:TAG, a file or folder that `likewise score` "
    f"wrote, {SPARK}HOST:PORT, or one of: {', '.join(dict.fromkeys([*_NAMES, *runners.RUNNERS]))}"
)


def _receipt_of(where: str) -> tuple[Receipt, Post]:
    name, _, target = where.partition("@")
    try:
        return deployments.predictor(name, to=target or None)
    except NotDeployed as error:
        known = [*_NAMES, *runners.names(), *(each.name for each in deployments.deployments())]
        raise NotDeployed(error.cause, remedy=f"{nearest(where, known)}{_KNOWN}") from error
