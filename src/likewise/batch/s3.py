"""Input files in S3 and whatever speaks its protocol, read by `pyarrow`.

Credentials as everywhere on AWS; the endpoint from AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or MLFLOW_S3_ENDPOINT_URL, the
region from AWS_REGION or AWS_DEFAULT_REGION.  What is found here may be pickled: another machine reads it at the same
endpoint and in the same region, with credentials of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from likewise.core.errors import InputNotFound, WrongUsage
from likewise.core.extras import need

SCHEME = "s3://"
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
CONNECT_S, REQUEST_S = 10, 60


@dataclass(frozen=True, slots=True)
class S3Store:
    """Where a bucket is reached: all that another process must be told of it, and no credentials.

    scheme, endpoint: None at AWS. region: None where the endpoint needs none.
    """

    region: str | None
    scheme: str | None
    endpoint: str | None

    @classmethod
    def of(cls, bucket: str) -> S3Store:
        """As the environment says; AWS is asked for the region of the bucket where nobody does."""
        endpoint = urlsplit(next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), ""))
        region = next((os.environ[name] for name in REGIONS if os.environ.get(name)), None)
        if region is None and not endpoint.netloc:
            region = need("pyarrow.fs", extra="batch").resolve_s3_region(bucket)
        place = endpoint.netloc.rpartition("@")[2] + endpoint.path.rstrip("/")
        return cls(region, endpoint.scheme or None, place or None)

    @property
    def system(self) -> Any:
        """The connection of this process, with the credentials that it has."""
        return _connected(self)


@lru_cache(maxsize=8)
def _connected(store: S3Store) -> Any:
    return need("pyarrow.fs", extra="batch").S3FileSystem(
        region=store.region,
        scheme=store.scheme,
        endpoint_override=store.endpoint,
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
    )


@dataclass(frozen=True, slots=True)
class S3File:
    """An object; its identity is its ETag, its size and the time when it was written."""

    store: S3Store
    key: str  # with the bucket
    short: str
    size: int
    identity: str

    @property
    def name(self) -> str:
        """The address."""
        return SCHEME + self.key

    @property
    def path(self) -> Path | None:
        """Not on this machine."""
        return None

    def open(self) -> Any:
        """The object, read by ranges; InputNotFound where it cannot be."""
        with told(self.name):
            return self.store.system.open_input_file(self.key)

    def now(self) -> str:
        """The identity as it is now."""
        with plain_errors(), self.store.system.open_input_file(self.key) as stream:
            return _identity(stream)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, as the environment's credentials see it."""

    store: S3Store
    name: str

    @classmethod
    def of(cls, address: str) -> tuple[Bucket, str]:
        """The bucket and the key of `s3://bucket/key`; WrongUsage where it names no bucket."""
        name, _, key = address.removeprefix(SCHEME).partition("/")
        if not name or "@" in name:
            raise WrongUsage(
                "an address in S3 is s3://bucket/key, without credentials in it",
                remedy="give those in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in ~/.aws/credentials",
            )
        with told(address):
            return cls(S3Store.of(name), name), key

    def list(self, prefix: str) -> list[str]:
        """Keys of all objects below a prefix that ends at a `/`; InputNotFound where the bucket cannot be listed."""
        fs = need("pyarrow.fs", extra="batch")
        base = f"{self.name}/{prefix}".rstrip("/")
        with told(SCHEME + base):
            found = self.store.system.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=bool(prefix)))
        return [info.path.partition("/")[2] for info in found if info.type == fs.FileType.File]

    def file(self, key: str) -> S3File | None:
        """The object, None where there is none of this very key."""
        fs = need("pyarrow.fs", extra="batch")
        path = f"{self.name}/{key}"
        with told(SCHEME + path):
            info = self.store.system.get_file_info(path)
        return self.open(key, key.rsplit("/", 1)[-1]) if info.type == fs.FileType.File else None

    def open(self, key: str, short: str) -> S3File:
        """The object's size and identity; InputNotFound where it cannot be read."""
        path = f"{self.name}/{key}"
        with told(SCHEME + path), self.store.system.open_input_file(path) as stream:
            return S3File(self.store, path, short, stream.size(), _identity(stream))


def _identity(stream: Any) -> str:
    said = {key.lower(): value.decode(errors="replace") for key, value in (stream.metadata() or {}).items()}
    known = [said[key] for key in ("etag", "last-modified") if key in said]
    return f"{stream.size()} bytes of {' of '.join(known)}"


@contextmanager
def told(address: str) -> Iterator[None]:
    """What S3 says, as InputNotFound for `address`."""
    try:
        with plain_errors():
            yield
    except (OSError, ValueError) as error:  # ValueError: an endpoint or a key that cannot be one
        raise InputNotFound(
            f"{address} cannot be read: {error}",
            remedy=f"check the address, the credentials, and the endpoint in {ENDPOINTS[1]} where it is not AWS",
        ) from error


@contextmanager
def plain_errors() -> Iterator[None]:
    """The same errors without credentials in their words."""
    try:
        yield
    except OSError as error:
        text = str(error)
        for name in SECRETS:
            text = text.replace(os.environ.get(name) or "\0", "…")
        raise type(error)(text) from None
