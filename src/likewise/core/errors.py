"""Every error that Likewise raises on purpose: a code, a cause and a remedy.

One class a code; `docs/errors.md` has one row a class and a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import ClassVar


class LikewiseError(Exception):
    """Something that the reader can mend.

    `cause` says what is wrong, with the names and values that were met; `remedy` what to do about it.
    """

    code: ClassVar[str] = "INTERNAL"
    status: ClassVar[int] = 500  # HTTP
    mlflow_code: ClassVar[str] = "INTERNAL_ERROR"  # what MLflow's clients read in `error_code`
    exit_code: ClassVar[int] = 1
    retry_after_s: float | None = None  # when the same request may be sent again, where that can help
    kinds: ClassVar[dict[str, type[LikewiseError]]] = {}  # by code

    def __init_subclass__(
        cls,
        status: int | None = None,
        mlflow_code: str | None = None,
        exit_code: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """The code is the class's name; what is not given is the base's."""
        cls.code = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).upper()
        cls.status, cls.mlflow_code = status or cls.status, mlflow_code or cls.mlflow_code
        cls.exit_code, cls.retry_after_s = exit_code or cls.exit_code, retry_after_s or cls.retry_after_s
        cls.kinds[cls.code] = cls

    def __init__(self, cause: str, *, remedy: str) -> None:
        self.cause = _printable(cause)
        self.remedy = _printable(remedy)
        super().__init__(self.cause)

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), remedy=self.remedy), (self.cause,), {"retry_after_s": self.retry_after_s}

    def as_dict(self) -> dict[str, str]:
        """`{"code", "cause", "remedy"}`, as `--json` prints it."""
        return {"code": self.code, "cause": self.cause, "remedy": self.remedy}

    @staticmethod
    def from_dict(said: Mapping[str, str]) -> LikewiseError:
        """What `as_dict` gave, as an error of the class that its code names."""
        return LikewiseError.kinds.get(said["code"], LikewiseError)(said["cause"], remedy=said["remedy"])


def _printable(text: str) -> str:
    """Lone surrogates (from a path that is not UTF-8, or from a model) escaped: no JSON or terminal takes them."""
    return text.encode("utf-8", "backslashreplace").decode()


class WrongUsage(LikewiseError, status=400, mlflow_code="INVALID_PARAMETER_VALUE", exit_code=2):
    """A command or a call that cannot mean anything."""


class MissingExtra(LikewiseError):
    """A library of an optional extra is not installed."""


# --- models, bundles -------------------------------------------------------------------------------------------------


class ModelNotFound(LikewiseError, status=404, mlflow_code="RESOURCE_DOES_NOT_EXIST"):
    """A model URI that names nothing: no such run, version, alias or path."""


class ModelInvalid(LikewiseError, status=400, mlflow_code="INVALID_PARAMETER_VALUE"):
    """What the URI names is not an MLflow model, or not one that can be loaded."""


class StoreUnreachable(LikewiseError, status=503, mlflow_code="TEMPORARILY_UNAVAILABLE"):
    """The tracking server or artifact store does not answer, or refuses."""


class CodeNotTrusted(LikewiseError, status=403, mlflow_code="PERMISSION_DENIED"):
    """The model needs its own Python code, and nobody has allowed it."""


class ReferenceMissing(LikewiseError):
    """The pipeline opens a model or a file that the bundle does not carry."""


class NotSelfContained(LikewiseError):
    """The bundle was built, but does not load, or not with the same answers, away from where it was made."""


class RowWiseRefuted(LikewiseError):
    """The model says that its rows are independent, and a trial shows that they are not."""


class BundleInvalid(LikewiseError):
    """Not a bundle, or one of a format that this version does not read."""


class BundleTampered(LikewiseError):
    """A bundle whose bytes are not those that its manifest names."""


class UnsafeArchive(LikewiseError):
    """An archive or a model folder with a path that escapes, a link, or a special file."""


class EngineUnavailable(LikewiseError):
    """The bundle has no such engine, or it cannot run here."""


# --- input and output ------------------------------------------------------------------------------------------------


class BadRequest(LikewiseError, status=400, mlflow_code="BAD_REQUEST"):
    """What the client sent is wrong; the cause names the field and the row."""


class UnsupportedContentType(LikewiseError, status=415, mlflow_code="BAD_REQUEST"):
    """A content type that no front door reads."""


class BodyTooLarge(LikewiseError, status=413, mlflow_code="REQUEST_LIMIT_EXCEEDED"):
    """A request body over the limit."""


class RowRefused(LikewiseError, status=422, mlflow_code="INVALID_PARAMETER_VALUE"):
    """The model, or its signature, refuses this row; its neighbours are not concerned."""


class ModelRaised(RowRefused):
    """The model raised an exception of its own on this row; its neighbours are not concerned."""


class ModelFailed(LikewiseError):
    """The model fails on every distinct item: it is broken, not the input."""


class Overloaded(LikewiseError, status=503, mlflow_code="TEMPORARILY_UNAVAILABLE", retry_after_s=1.0):
    """More is waiting than can be answered within the deadline, or than may wait."""


class DeadlineExceeded(LikewiseError, status=504, mlflow_code="DEADLINE_EXCEEDED"):
    """The answer did not come within the deadline."""


class WorkerDied(LikewiseError, status=503, mlflow_code="TEMPORARILY_UNAVAILABLE", retry_after_s=1.0):
    """The process that ran the model ended while it held this item; it is replaced, and the item may be sent again."""


class BodyTimeout(LikewiseError, status=408, mlflow_code="BAD_REQUEST"):
    """The request's body did not arrive in time."""


class Unauthorized(LikewiseError, status=401, mlflow_code="UNAUTHENTICATED"):
    """The request has no token, or not one that the server knows."""


class Draining(LikewiseError, status=503, mlflow_code="TEMPORARILY_UNAVAILABLE", retry_after_s=1.0):
    """The server is stopping and takes no new work."""


class NotReady(LikewiseError, status=503, mlflow_code="TEMPORARILY_UNAVAILABLE", retry_after_s=1.0):
    """The model is still being loaded, or its warm-up failed."""


class RouteNotFound(LikewiseError, status=404, mlflow_code="ENDPOINT_NOT_FOUND"):
    """The server has nothing at this path."""


class MethodNotAllowed(LikewiseError, status=405, mlflow_code="BAD_REQUEST"):
    """The path is there, but not for this HTTP method."""


class InputNotFound(LikewiseError):
    """The input file does not exist or cannot be read."""


class InputInvalid(LikewiseError):
    """The input cannot be read as what it says it is, or lacks a column that the model needs."""


class OutputRefused(LikewiseError):
    """The output cannot be written: it exists, its folder does not, or the disk is full."""


class TooManyQuarantined(LikewiseError):
    """More rows were quarantined than the job allows."""


class PortTaken(LikewiseError):
    """Another process listens on the address."""


# --- deployments -----------------------------------------------------------------------------------------------------


class NotDeployed(LikewiseError, status=404, mlflow_code="RESOURCE_DOES_NOT_EXIST"):
    """No deployment of this name, or nothing answers where it should stand."""


class AlreadyDeployed(LikewiseError, status=409, mlflow_code="RESOURCE_ALREADY_EXISTS"):
    """A deployment of this name stands there already."""


class TargetUnavailable(LikewiseError, status=503, mlflow_code="TEMPORARILY_UNAVAILABLE"):
    """The place to deploy to cannot be reached, or lacks what the deployment needs."""


class DeployFailed(LikewiseError):
    """The place refused, or what was deployed does not answer as it should; what was begun has been taken back."""


class Busy(LikewiseError, status=409, mlflow_code="TEMPORARILY_UNAVAILABLE"):
    """Another process is changing the same deployment."""


class Interrupted(LikewiseError, exit_code=130):
    """Stopped by the user."""
