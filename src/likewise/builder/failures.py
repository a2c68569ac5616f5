"""Converts exceptions of MLflow and its libraries to Likewise errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from likewise.core.errors import LikewiseError, MissingExtra, ModelNotFound, OutputRefused, StoreUnreachable, WrongUsage
from likewise.core.extras import install_command
from likewise.core.uris import redacted, without_secrets
from likewise.engine.vendored import exception_chain

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
    """Convert exceptions while fetching `uri` to ModelNotFound, StoreUnreachable, MissingExtra or WrongUsage.

    The secrets in URIs are also removed from the messages of the original exceptions, which tracebacks show.
    """
    try:
        yield
    except LikewiseError:
        raise
    except Exception as error:
        user = urlsplit(uri).netloc.rpartition("@")[0] or "\0"  # libraries also quote a host without its URI
        for link in exception_chain(error):
            link.args = tuple(_clean(each, user) if isinstance(each, str) else each for each in link.args)
        raise _convert(without_secrets(uri), error) from error


def _clean(text: str, user: str) -> str:
    return redacted(text).replace(user, "…")


def _convert(uri: str, error: Exception) -> LikewiseError:
    for link in exception_chain(error):
        if (converted := _convert_library_error(uri, link)) is not None:
            return converted
    return _convert_mlflow_error(uri, error)


def _convert_library_error(uri: str, link: BaseException) -> LikewiseError | None:
    if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return unwritable(link)
    kind, package = type(link).__name__, type(link).__module__.partition(".")[0]
    if isinstance(link, ModuleNotFoundError):
        extra = "aws" if link.name in ("boto3", "botocore") else "mlflow"
        return MissingExtra(f"{uri} needs {link.name}, which is not installed", remedy=install_command(extra))
    if isinstance(link, ImportError):
        return LikewiseError(
            f"a library that reads {uri} cannot be imported: {link}",
            remedy="install the library again, or another version of it, in a new virtual environment",
        )
    if kind in _NO_CREDENTIALS:
        return StoreUnreachable(
            f"there are no credentials for {uri}: {link}",
            remedy="sign in to the store: run aws configure, or set AWS_PROFILE",
        )
    if kind == "ClientError" and package == "botocore":
        code = str(getattr(link, "response", {}).get("Error", {}).get("Code", ""))
        return _not_found(uri, str(link)) if code in _ABSENT else _unreachable(uri, link)
    return _unreachable(uri, link) if _UNREACHABLE.get(kind) == package else None


def unwritable(error: OSError) -> LikewiseError:
    """The error for a full disk or a folder that is not writable."""
    where = f" at {error.filename}" if error.filename else ""
    return OutputRefused(
        f"the output cannot be written{where}: {error.strerror or error}",
        remedy="free disk space, or choose another folder with -o",
    )


def _convert_mlflow_error(uri: str, error: Exception) -> LikewiseError:
    code, text = str(getattr(error, "error_code", "")), str(error)
    if os.strerror(errno.ENOSPC) in text:  # MLflow reports errors of its threads as text
        return unwritable(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    if "Could not find a registered artifact repository" in text or "Not a proper" in text:
        return WrongUsage(f"{uri} is not a valid model URI", remedy=f"use one of: {_KINDS}")
    if code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE") or isinstance(error, FileNotFoundError):
        return _not_found(uri, text)
    return _unreachable(uri, error)


def _not_found(uri: str, text: str) -> LikewiseError:
    remedy = "check the run, name, version or alias; MLFLOW_TRACKING_URI selects the store"
    name = uri.removeprefix("models:/")
    if name != uri and not name.startswith("m-") and "/" not in name and "@" not in name:
        remedy = f"name a version or an alias: models:/{name}/1, models:/{name}@ALIAS; {remedy}"
    return ModelNotFound(f"{uri} does not exist: {_short(text)}", remedy=remedy)


def _unreachable(uri: str, error: BaseException) -> LikewiseError:
    return StoreUnreachable(
        f"the store of {uri} does not respond, or denies access: {type(error).__name__}: {_short(str(error))}",
        remedy="check that it is running, that MLFLOW_TRACKING_URI is set to it, and that you have read access",
    )


def _short(text: str) -> str:
    line = redacted(" ".join(text.split()))
    return line if len(line) <= 300 else line[:300] + "…"
