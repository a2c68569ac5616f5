"""What MLflow and the libraries behind it raise, as errors of ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from likewise.core.errors import LikewiseError, MissingExtra, ModelNotFound, OutputRefused, StoreUnreachable, WrongUsage
from likewise.engine.vendored import causes

_UNREACHABLE = {
    "ConnectionError": "requests",
    "ConnectTimeout": "requests",
    "ReadTimeout": "requests",
    "Timeout": "requests",
    "SSLError": "requests",
    "MaxRetryError": "urllib3",
    "EndpointConnectionError": "botocore",
    "ConnectTimeoutError": "botocore",
    "OperationalError": "sqlalchemy",
}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"}
_ABSENT = {"NoSuchBucket", "NoSuchKey", "404"}
_KINDS = "runs:/RUN/PATH, models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID, a local path, s3://BUCKET/PATH"


@contextmanager
def mapped(uri: str) -> Iterator[None]:
    """Raise what goes wrong while `uri` is fetched as ModelNotFound, StoreUnreachable, MissingExtra or WrongUsage."""
    try:
        yield
    except LikewiseError:
        raise
    except Exception as error:
        raise _named(uri, error) from error


def _named(uri: str, error: Exception) -> LikewiseError:
    for link in causes(error):
        if (found := _of_library(uri, link)) is not None:
            return found
    return _of_mlflow(uri, error)


def _of_library(uri: str, link: BaseException) -> LikewiseError | None:
    if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return unwritable(link)
    kind, package = type(link).__name__, type(link).__module__.partition(".")[0]
    if isinstance(link, ModuleNotFoundError):
        extra = "aws" if link.name in ("boto3", "botocore") else "mlflow"
        return MissingExtra(
            f"{uri} needs {link.name}, which is not installed", remedy=f"pip install 'likewise[{extra}]'"
        )
    if kind in _NO_CREDENTIALS:
        return StoreUnreachable(
            f"there are no credentials for {uri}: {link}", remedy="sign in to the store: aws configure, or AWS_PROFILE"
        )
    if kind == "ClientError" and package == "botocore":
        code = str(getattr(link, "response", {}).get("Error", {}).get("Code", ""))
        return _absent(uri, str(link)) if code in _ABSENT else _refused(uri, link)
    return _refused(uri, link) if _UNREACHABLE.get(kind) == package else None


def unwritable(error: OSError) -> LikewiseError:
    """A disk that is full, or a folder that may not be written."""
    where = f" at {error.filename}" if error.filename else ""
    return OutputRefused(
        f"the output cannot be written{where}: {error.strerror or error}",
        remedy="make room, or name another folder with -o",
    )


def _of_mlflow(uri: str, error: Exception) -> LikewiseError:
    code, text = str(getattr(error, "error_code", "")), str(error)
    if os.strerror(errno.ENOSPC) in text:  # MLflow passes a thread's error on as text
        return unwritable(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    if "Could not find a registered artifact repository" in text or "Not a proper" in text:
        return WrongUsage(f"{uri} is not a URI that a model can have", remedy=f"name one of: {_KINDS}")
    if code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE") or isinstance(error, FileNotFoundError):
        return _absent(uri, text)
    return _refused(uri, error)


def _absent(uri: str, text: str) -> LikewiseError:
    return ModelNotFound(
        f"{uri} names nothing: {_short(text)}",
        remedy="check the run, name, version or alias; MLFLOW_TRACKING_URI says which store is asked",
    )


def _refused(uri: str, error: BaseException) -> LikewiseError:
    return StoreUnreachable(
        f"the store of {uri} does not answer, or refuses: {type(error).__name__}: {_short(str(error))}",
        remedy="check that it runs, that MLFLOW_TRACKING_URI names it, and that you may read it",
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:300] + "…"
