"""Every error that Likewise raises on purpose: a code, a cause and a remedy.

One class a code; `docs/errors.md` has one row a class and a test compares the two.
"""

from __future__ import annotations

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

    def __init__(self, cause: str, *, remedy: str) -> None:
        self.cause = _printable(cause)
        self.remedy = _printable(remedy)
        super().__init__(self.cause)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.cause, self.remedy, self.retry_after_s))

    def as_dict(self) -> dict[str, str]:
        """`{"code", "cause", "remedy"}`, as `--json` prints it."""
        return {"code": self.code, "cause": self.cause, "remedy": self.remedy}


def _printable(text: str) -> str:
    """Lone surrogates (from a path that is not UTF-8, or from a model) escaped: no JSON or terminal takes them."""
    return text.encode("utf-8", "backslashreplace").decode()


def _rebuild(kind: type[LikewiseError], cause: str, remedy: str, retry_after_s: float | None) -> LikewiseError:
    error = kind(cause, remedy=remedy)
    error.retry_after_s = retry_after_s
    return error


class WrongUsage(LikewiseError):
    """A command or a call that cannot mean anything."""

    code = "WRONG_USAGE"
    status = 400
    mlflow_code = "INVALID_PARAMETER_VALUE"
    exit_code = 2


class MissingExtra(LikewiseError):
    """A library of an optional extra is not installed."""

    code = "MISSING_EXTRA"


# --- models, bundles -------------------------------------------------------------------------------------------------


class ModelNotFound(LikewiseError):
    """A model URI that names nothing: no such run, version, alias or path."""

    code = "MODEL_NOT_FOUND"
    status = 404
    mlflow_code = "RESOURCE_DOES_NOT_EXIST"


class ModelInvalid(LikewiseError):
    """What the URI names is not an MLflow model, or not one that can be loaded."""

    code = "MODEL_INVALID"
    status = 400
    mlflow_code = "INVALID_PARAMETER_VALUE"


class StoreUnreachable(LikewiseError):
    """The tracking server or artifact store does not answer, or refuses."""

    code = "STORE_UNREACHABLE"
    status = 503
    mlflow_code = "TEMPORARILY_UNAVAILABLE"


class CodeNotTrusted(LikewiseError):
    """The model needs its own Python code, and nobody has allowed it."""

    code = "CODE_NOT_TRUSTED"
    status = 403
    mlflow_code = "PERMISSION_DENIED"


class ReferenceMissing(LikewiseError):
    """The pipeline opens a model or a file that the bundle does not carry."""

    code = "REFERENCE_MISSING"


class NotSelfContained(LikewiseError):
    """The bundle was built, but does not load, or not with the same answers, away from where it was made."""

    code = "NOT_SELF_CONTAINED"


class RowWiseRefuted(LikewiseError):
    """The model says that its rows are independent, and a trial shows that they are not."""

    code = "ROW_WISE_REFUTED"


class BundleInvalid(LikewiseError):
    """Not a bundle, or one of a format that this version does not read."""

    code = "BUNDLE_INVALID"


class BundleTampered(LikewiseError):
    """A bundle whose bytes are not those that its manifest names."""

    code = "BUNDLE_TAMPERED"


class UnsafeArchive(LikewiseError):
    """An archive or a model folder with a path that escapes, a link, or a special file."""

    code = "UNSAFE_ARCHIVE"


class EngineUnavailable(LikewiseError):
    """The bundle has no such engine, or it cannot run here."""

    code = "ENGINE_UNAVAILABLE"


# --- input and output ------------------------------------------------------------------------------------------------


class BadRequest(LikewiseError):
    """What the client sent is wrong; the cause names the field and the row."""

    code = "BAD_REQUEST"
    status = 400
    mlflow_code = "BAD_REQUEST"


class UnsupportedContentType(LikewiseError):
    """A content type that no front door reads."""

    code = "UNSUPPORTED_CONTENT_TYPE"
    status = 415
    mlflow_code = "BAD_REQUEST"


class BodyTooLarge(LikewiseError):
    """A request body over the limit."""

    code = "BODY_TOO_LARGE"
    status = 413
    mlflow_code = "REQUEST_LIMIT_EXCEEDED"


class RowRefused(LikewiseError):
    """The model, or its signature, refuses this row; its neighbours are not concerned."""

    code = "ROW_REFUSED"
    status = 422
    mlflow_code = "INVALID_PARAMETER_VALUE"


class ModelRaised(RowRefused):
    """The model raised an exception of its own on this row; its neighbours are not concerned."""

    code = "MODEL_RAISED"


class ModelFailed(LikewiseError):
    """The model fails on every distinct item: it is broken, not the input."""

    code = "MODEL_FAILED"
    status = 500
    mlflow_code = "INTERNAL_ERROR"


class Overloaded(LikewiseError):
    """More is waiting than can be answered within the deadline, or than may wait."""

    code = "OVERLOADED"
    status = 503
    mlflow_code = "TEMPORARILY_UNAVAILABLE"
    retry_after_s = 1.0


class DeadlineExceeded(LikewiseError):
    """The answer did not come within the deadline."""

    code = "DEADLINE_EXCEEDED"
    status = 504
    mlflow_code = "DEADLINE_EXCEEDED"


class WorkerDied(LikewiseError):
    """The process that ran the model ended while it held this item; it is replaced, and the item may be sent again."""

    code = "WORKER_DIED"
    status = 503
    mlflow_code = "TEMPORARILY_UNAVAILABLE"
    retry_after_s = 1.0


class BodyTimeout(LikewiseError):
    """The request's body did not arrive in time."""

    code = "BODY_TIMEOUT"
    status = 408
    mlflow_code = "BAD_REQUEST"


class Unauthorized(LikewiseError):
    """The request has no token, or not one that the server knows."""

    code = "UNAUTHORIZED"
    status = 401
    mlflow_code = "UNAUTHENTICATED"


class Draining(LikewiseError):
    """The server is stopping and takes no new work."""

    code = "DRAINING"
    status = 503
    mlflow_code = "TEMPORARILY_UNAVAILABLE"
    retry_after_s = 1.0


class NotReady(LikewiseError):
    """The model is still being loaded, or its warm-up failed."""

    code = "NOT_READY"
    status = 503
    mlflow_code = "TEMPORARILY_UNAVAILABLE"
    retry_after_s = 1.0


class RouteNotFound(LikewiseError):
    """The server has nothing at this path."""

    code = "ROUTE_NOT_FOUND"
    status = 404
    mlflow_code = "ENDPOINT_NOT_FOUND"


class MethodNotAllowed(LikewiseError):
    """The path is there, but not for this HTTP method."""

    code = "METHOD_NOT_ALLOWED"
    status = 405
    mlflow_code = "BAD_REQUEST"


class InputNotFound(LikewiseError):
    """The input file does not exist or cannot be read."""

    code = "INPUT_NOT_FOUND"


class InputInvalid(LikewiseError):
    """The input cannot be read as what it says it is, or lacks a column that the model needs."""

    code = "INPUT_INVALID"


class OutputRefused(LikewiseError):
    """The output cannot be written: it exists, its folder does not, or the disk is full."""

    code = "OUTPUT_REFUSED"


class TooManyQuarantined(LikewiseError):
    """More rows were quarantined than the job allows."""

    code = "TOO_MANY_QUARANTINED"


class PortTaken(LikewiseError):
    """Another process listens on the address."""

    code = "PORT_TAKEN"


# --- deployments -----------------------------------------------------------------------------------------------------


class NotDeployed(LikewiseError):
    """No deployment of this name, or nothing answers where it should stand."""

    code = "NOT_DEPLOYED"
    status = 404
    mlflow_code = "RESOURCE_DOES_NOT_EXIST"


class AlreadyDeployed(LikewiseError):
    """A deployment of this name stands there already."""

    code = "ALREADY_DEPLOYED"
    status = 409
    mlflow_code = "RESOURCE_ALREADY_EXISTS"


class TargetUnavailable(LikewiseError):
    """The place to deploy to cannot be reached, or lacks what the deployment needs."""

    code = "TARGET_UNAVAILABLE"
    status = 503
    mlflow_code = "TEMPORARILY_UNAVAILABLE"


class DeployFailed(LikewiseError):
    """The place refused, or what was deployed does not answer as it should; what was begun has been taken back."""

    code = "DEPLOY_FAILED"


class Busy(LikewiseError):
    """Another process is changing the same deployment."""

    code = "BUSY"
    status = 409
    mlflow_code = "TEMPORARILY_UNAVAILABLE"


class Interrupted(LikewiseError):
    """Stopped by the user."""

    code = "INTERRUPTED"
    exit_code = 130
