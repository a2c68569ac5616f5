"""Settings of a container from environment variables: the server's options and the container's own.

Source of the `SAGEMAKER_…` names: AWS, "Custom Inference Code with Hosting Services" and "… with Batch Transform".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path

from likewise.core.cores import OURS
from likewise.core.errors import WrongUsage
from likewise.core.option_fields import coerce, option
from likewise.server.server_options import ServerOptions

PREFIX = "LIKEWISE_"
MB = 1024 * 1024
MAX_BATCH_MB = 100
BATCH_DEADLINE_S = 600.0
AUTO = "auto"  # LIKEWISE_WORKERS: the default
NOT_OPTIONS = frozenset({"CACHE_HOME", "CONFIG_HOME", "DATA_HOME", "DEBUG", OURS.removeprefix(PREFIX)})
"""Names of `LIKEWISE_` variables that are not container options."""

_OF_KUBERNETES = re.compile(
    r"LIKEWISE_(\w+_)?(SERVICE_HOST=[\da-f.:]+|SERVICE_PORT(_\w+)?=\d+|PORT(_\d+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://\S+|"
    r"PORT_\d+_(TCP|UDP|SCTP)_(ADDR=[\da-f.:]+|PORT=\d+|PROTO=(tcp|udp|sctp)))",
    re.ASCII,
)
"""The variables that Kubernetes sets in every container of a namespace for its Service `likewise` or `likewise-…`.

Source: Kubernetes, "Service: environment variables"; it names them as Docker's links did.
"""

_MAY_BE_ZERO = frozenset({"port", "workers", "run_timeout_s", "cache_bytes", "drain_linger_s", "drain_timeout_s"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerOptions(ServerOptions):
    """Each option is set by the variable `LIKEWISE_` plus its name in capitals; help texts as in `ServerOptions`."""

    host: str = option("0.0.0.0", "Address to listen on.")  # noqa: S104  the platform controls access
    port: int = option(8080, "Port to listen on; SageMaker's SAGEMAKER_BIND_TO_PORT takes precedence.")
    insecure: bool = option(True, "Serve without authentication, since the platform controls access.")
    deadline_s: float = option(55.0, "Deadline for a response, in seconds; SageMaker closes the connection after 60.")
    bundle: Path | None = option(None, "Folder of the bundle; by default the image's, else the one in model_dir.")
    model_dir: Path = option(Path("/opt/ml/model"), "Folder with a bundle; SageMaker unpacks model.tar.gz there.")
    trust: bool = option(False, "Allow running the model's own Python code.")
    engine: str | None = option(None, "Which of the bundle's engines to use; by default the best one.")
    precision: str | None = option(None, "bf16 or fp32; by default whichever is faster on this machine.")


def _raise(unknown: WrongUsage) -> None:
    raise unknown


def read_options(environment: Mapping[str, str], on_unknown: Callable[[WrongUsage], None] = _raise) -> ContainerOptions:
    """The options set in `environment`.

    In addition to `LIKEWISE_…`: SAGEMAKER_BIND_TO_PORT; SAGEMAKER_MODEL_SERVER_WORKERS if LIKEWISE_WORKERS is not set;
    and, in a batch transform job, SAGEMAKER_MAX_PAYLOAD_IN_MB, which may raise the limits of bodies and cells.  Empty
    variables count as unset, and so do those of Kubernetes.  on_unknown: called for each `LIKEWISE_` variable that is
    unknown, and then has no effect.  Raises WrongUsage, which names the variable.
    """
    known = {field.name for field in fields(ContainerOptions)}
    values = _of_sagemaker(environment)
    for variable, text in sorted(environment.items()):
        name = variable.removeprefix(PREFIX)
        if not variable.upper().startswith(PREFIX) or name in NOT_OPTIONS or not text:
            continue
        if _OF_KUBERNETES.fullmatch(f"{variable}={text}"):
            continue
        if name == "WORKERS" and text.lower() == AUTO:
            values.pop("workers", None)
            continue
        if name.lower() not in known or not name.isupper():
            on_unknown(_unknown(variable, known))
        elif name != "PORT" or "port" not in values:
            values[name.lower()] = (variable, text)
    return coerce(ContainerOptions, {name: _value(name, *source) for name, source in values.items()})


def _of_sagemaker(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    values = {}
    for variable, name in (("SAGEMAKER_BIND_TO_PORT", "port"), ("SAGEMAKER_MODEL_SERVER_WORKERS", "workers")):
        if text := environment.get(variable):
            values[name] = (variable, text)
    if environment.get("SAGEMAKER_BATCH", "").lower() == "true":
        variable = "SAGEMAKER_MAX_PAYLOAD_IN_MB"
        limit = (_whole(variable, environment.get(variable) or "6") or MAX_BATCH_MB) * MB  # 0 means unlimited
        values["body_limit_bytes"] = (variable, str(max(limit, ServerOptions().body_limit_bytes)))
        values["cells_limit"] = (variable, str(limit))  # SageMaker sends as many rows as fit
        values["deadline_s"] = ("SAGEMAKER_BATCH", str(BATCH_DEADLINE_S))
    return values


def _whole(variable: str, text: str) -> int:
    if not text.isdecimal():
        raise WrongUsage(f"the variable {variable} is {text!r}, not a whole number", remedy=f"correct {variable}")
    return int(text)


def _value(name: str, variable: str, text: str) -> object:
    """Parse one option; raises WrongUsage, which names its variable."""
    text = _as_number(name, text)
    try:
        value: object = getattr(coerce(ContainerOptions, {name: text}), name)
    except WrongUsage as error:
        cause = error.cause.replace(f"option {name!r}", f"the variable {variable}")
        raise WrongUsage(cause, remedy=f"correct {variable}, or unset it") from error
    floor = 0.0 if name in _MAY_BE_ZERO else math.ulp(0.0)
    if isinstance(value, int | float) and not isinstance(value, bool) and not floor <= value < math.inf:
        raise WrongUsage(
            f"the variable {variable} is {text!r}, which is too small or not a finite number",
            remedy=f"correct {variable}, or unset it",
        )
    return value


def _as_number(name: str, text: str) -> str:
    """Replace the keyword `strict` trust (as in the MLflow plugins) by false."""
    return "false" if name == "trust" and text.lower() == "strict" else text


def _unknown(variable: str, known: set[str]) -> WrongUsage:
    near = get_close_matches(variable.lower().removeprefix(PREFIX.lower()), known, 1)
    meant = f"did you mean {PREFIX}{near[0].upper()}? " if near else ""
    names = ", ".join(PREFIX + name.upper() for name in sorted(known))
    return WrongUsage(f"unknown setting {variable}", remedy=f"{meant}settings: {names}")
