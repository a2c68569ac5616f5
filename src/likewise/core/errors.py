"""All errors that Likewise raises deliberately, each with a code, a cause and a remedy.

There is one class per code; `docs/errors.md` has one row per class and is generated from the docstrings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import ClassVar

from likewise.core.uris import redacted

_ARGUMENTS = (
    (re.compile(r"--trust(?![\w-])"), "trust=True"),
    (re.compile(r"--allow-versions(?![\w-])"), "allow_versions=True"),
    (re.compile(r"--restart(?![\w-])"), "options=ScoreOptions(restart=True)"),
    (re.compile(r"--column (\S+?)=(\S+?)(?=,?(?:\s|$))"), r"column={'\1': '\2'} in ScoreOptions or score_frame"),
    (re.compile(r"--reference (\S+?)(?=,?(?:\s|$))"), r"references=['\1']"),
)
"""Flags of remedies, and the arguments of `bundle`, `deploy` and `score` that take their place in Python."""


class LikewiseError(Exception):
    """An unexpected failure, for example a bug in Likewise.

    Also the base class of all errors that Likewise raises.
    `cause` describes what is wrong, with the names and values involved; `remedy` describes how to fix it.  Secrets in
    URIs are removed from both, since they may contain the message of a library.
    """

    code: ClassVar[str] = "INTERNAL"
    status: ClassVar[int] = 500  # HTTP
    mlflow_code: ClassVar[str] = "INTERNAL_ERROR"  # the `error_code` that MLflow's clients read
    exit_code: ClassVar[int] = 1
    retry_after_s: float | None = None  # seconds until the same request may be retried; None if retrying cannot help
    details: Mapping[str, object] = MappingProxyType({})  # what `--json` prints next to the error
    kinds: ClassVar[dict[str, type[LikewiseError]]] = {}  # by code

    def __init_subclass__(
        cls,
        status: int | None = None,
        mlflow_code: str | None = None,
        exit_code: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Derive the code from the class name; omitted settings are inherited."""
        cls.code = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).upper()
        cls.status, cls.mlflow_code = status or cls.status, mlflow_code or cls.mlflow_code
        cls.exit_code, cls.retry_after_s = exit_code or cls.exit_code, retry_after_s or cls.retry_after_s
        cls.kinds[cls.code] = cls

    def __init__(self, cause: str, *, remedy: str) -> None:
        self.cause = _printable(redacted(cause))
        self.remedy = _printable(redacted(remedy))
        super().__init__(self.cause)
        self.add_note(f"remedy: {_in_python(self.remedy)}")  # for tracebacks

    def __str__(self) -> str:
        return self.cause  # also where more was added to it

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), remedy=self.remedy), (self.cause,), {"retry_after_s": self.retry_after_s}

    def as_dict(self) -> dict[str, str]:
        """`{"code", "cause", "remedy"}`, the format that `--json` prints."""
        return {"code": self.code, "cause": self.cause, "remedy": self.remedy}

    @staticmethod
    def from_dict(document: Mapping[str, str]) -> LikewiseError:
        """Restore an error from the output of `as_dict`; the code selects the class."""
        return LikewiseError.kinds.get(document["code"], LikewiseError)(document["cause"], remedy=document["remedy"])


def _in_python(remedy: str) -> str:
    """`remedy` with the arguments of Python functions in place of the flags of commands."""
    for flag, argument in _ARGUMENTS:
        remedy = flag.sub(argument, remedy)
    return remedy


def _printable(text: str) -> str:
    """Escape lone surrogates (from a non-UTF-8 path or from a model), which JSON and terminals cannot represent."""
    return text.encode("utf-8", "backslashreplace").decode()


class WrongUsage(LikewiseError, status=400, mlflow_code="INVALID_PARAMETER_VALUE", exit_code=2):
    """Invalid arguments, options or configuration."""


class MissingExtra(LikewiseError):
    """A required optional dependency is not installed."""


# --- models, bundles -------------------------------------------------------------------------------------------------


class ModelNotFound(LikewiseError, status=404, mlflow_code="RESOURCE_DOES_NOT_EXIST"):
    """The model URI does not exist: no such run, version, alias or path."""


class ModelInvalid(LikewiseError, status=400, mlflow_code="INVALID_PARAMETER_VALUE"):
    """The URI does not point to an MLflow model, or the model cannot be loaded."""


class StoreUnreachable(LikewiseError, status=503, mlflow_code="TEMPORARILY_UNAVAILABLE"):
    """The tracking server or artifact store does not respond, or denies access."""


class CodeNotTrusted(LikewiseError, status=403, mlflow_code="PERMISSION_DENIED"):
    """The model needs to run its own Python code, which the user has not allowed."""


class ReferenceMissing(LikewiseError):
    """The pipeline opens a model or a file that the bundle does not contain."""


class NotSelfContained(LikewiseError):
    """The bundle was built, but in isolation it does not load or gives different predictions."""


class RowWiseRefuted(LikewiseError):
    """The model's rows are declared to be independent of each other (row-wise), but a test shows that they are not."""


class BundleInvalid(LikewiseError):
    """Not a bundle, or a bundle in a format that this version cannot read."""


class BundleTampered(LikewiseError):
    """The bundle's contents do not match the digests in its manifest."""


class UnsafeArchive(LikewiseError):
    """An archive or model folder contains a path outside that folder, a link, or a special file."""


class EngineUnavailable(LikewiseError):
    """The bundle does not have this engine, or the engine cannot run on this machine."""


class VersionsDiffer(EngineUnavailable):
    """The library or the Python that runs the model is not the one that it was logged with, and that matters."""


class EnvironmentFailed(LikewiseError):
    """An environment with the versions that the model was logged with cannot be made here."""


# --- input and output ------------------------------------------------------------------------------------------------


class BadRequest(LikewiseError, status=400, mlflow_code="BAD_REQUEST"):
    """The request is malformed; the cause names the field and the row."""


class UnsupportedContentType(LikewiseError, status=415, mlflow_code="BAD_REQUEST"):
    """The request's content type is not supported, or the predictions cannot be written as the one that it accepts."""


class BodyTooLarge(LikewiseError, status=413, mlflow_code="REQUEST_LIMIT_EXCEEDED"):
    """The request body exceeds the size limit."""


class TooManyCells(LikewiseError, status=413, mlflow_code="REQUEST_LIMIT_EXCEEDED"):
    """The request has more cells (values of a table, a tensor or JSON) than the limit, or its table is mostly empty."""


class RowRefused(LikewiseError, status=422, mlflow_code="INVALID_PARAMETER_VALUE"):
    """The model or its signature rejects this row; other rows are not affected."""


class ModelRaised(RowRefused):
    """The model raised an exception for this row; other rows are not affected."""


class ModelCrashed(ModelRaised):
    """The worker process ended when it processed this row alone; other rows are not affected."""


class ModelFailed(LikewiseError):
    """The model fails on several different rows or on its own input example, so the model is at fault."""


class Overloaded(LikewiseError, status=503, mlflow_code="TEMPORARILY_UNAVAILABLE", retry_after_s=1.0):
    """The queue is full or too long for this request's deadline, or too many bytes of requests are in flight."""


class DeadlineExceeded(LikewiseError, status=504, mlflow_code="DEADLINE_EXCEEDED"):
    """The prediction was not ready within the deadline."""


class RunTimeout(LikewiseError, status=504, mlflow_code="DEADLINE_EXCEEDED"):
    """The model did not return a prediction for this row within the run time-out; other rows are not affected."""


class WorkerDied(LikewiseError, status=503, mlflow_code="TEMPORARILY_UNAVAILABLE", retry_after_s=1.0):
    """No worker process can run the model, or one was killed while it ran this row alone; send the request again."""


class BodyTimeout(LikewiseError, status=408, mlflow_code="BAD_REQUEST"):
    """The request body did not arrive in time."""


class Unauthorized(LikewiseError, status=401, mlflow_code="UNAUTHENTICATED"):
    """The request has no valid token."""


class HostRefused(LikewiseError, status=421, mlflow_code="PERMISSION_DENIED"):
    """The request is for a host name that is not the server's own."""


class Draining(LikewiseError, status=503, mlflow_code="TEMPORARILY_UNAVAILABLE", retry_after_s=1.0):
    """The server is shutting down and accepts no new requests."""


class NotReady(LikewiseError, status=503, mlflow_code="TEMPORARILY_UNAVAILABLE", retry_after_s=1.0):
    """The model is still loading, or its warm-up failed."""


class RouteNotFound(LikewiseError, status=404, mlflow_code="ENDPOINT_NOT_FOUND"):
    """The server has no route at this path."""


class MethodNotAllowed(LikewiseError, status=405, mlflow_code="BAD_REQUEST"):
    """The path does not support this HTTP method."""


class InputNotFound(LikewiseError):
    """The input file does not exist or cannot be read."""


class InputInvalid(LikewiseError):
    """The input is not in the declared format, or lacks a column that the model needs."""


class OutputRefused(LikewiseError):
    """The output cannot be written: it exists, its folder does not, the disk is full, or another job uses it."""


class TooManyQuarantined(LikewiseError):
    """More rows failed than `--fail-on-quarantine` allows."""


class NothingScored(LikewiseError):
    """A job has written its output, but it contains no prediction."""


class PortTaken(LikewiseError):
    """Another process is listening on the address."""


# --- deployments -----------------------------------------------------------------------------------------------------


class NotDeployed(LikewiseError, status=404, mlflow_code="RESOURCE_DOES_NOT_EXIST"):
    """There is no deployment with this name, or it does not respond."""


class AlreadyDeployed(LikewiseError, status=409, mlflow_code="RESOURCE_ALREADY_EXISTS"):
    """A deployment with this name already exists."""


class TargetUnavailable(LikewiseError, status=503, mlflow_code="TEMPORARILY_UNAVAILABLE"):
    """The target cannot be reached, or lacks something that the deployment needs."""


class DeployFailed(LikewiseError):
    """The target rejected the deployment, or the deployed model responds incorrectly; changes were rolled back."""


class Busy(LikewiseError, status=409, mlflow_code="TEMPORARILY_UNAVAILABLE"):
    """Another process is modifying the same deployment."""


class Interrupted(LikewiseError, exit_code=130):
    """Stopped by Ctrl-C, SIGTERM or SIGHUP."""
