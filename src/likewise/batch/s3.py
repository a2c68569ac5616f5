"""Input files in S3 and in compatible stores, read with `pyarrow`.

Credentials come from the usual AWS sources; the endpoint from AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or
MLFLOW_S3_ENDPOINT_URL; the region from AWS_REGION or AWS_DEFAULT_REGION.  The classes can be pickled: another machine
then reads from the same endpoint and region, with its own credentials.
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
from likewise.core.proxies import proxy_for
from likewise.core.uris import is_bucket

SCHEME = "s3://"
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
CONNECT_S, REQUEST_S = 10, 60


@dataclass(frozen=True, slots=True)
class S3Store:
    """How to connect to a bucket, without credentials; can be sent to other processes.

    scheme, endpoint: None for AWS. region: None if the endpoint does not need one.
    """

    region: str | None
    scheme: str | None
    endpoint: str | None

    @classmethod
    def of(cls, bucket: str) -> S3Store:
        """The store for `bucket` by the environment variables; without a region among them, AWS is queried for it."""
        endpoint = urlsplit(next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), ""))
        region = next((os.environ[name] for name in REGIONS if os.environ.get(name)), None)
        if region is None and not endpoint.netloc:
            region = need("pyarrow.fs", extra="batch").resolve_s3_region(bucket)
        address = endpoint.netloc.rpartition("@")[2] + endpoint.path.rstrip("/")
        return cls(region, endpoint.scheme or None, address or None)

    @property
    def system(self) -> Any:
        """This process's connection, with its own credentials."""
        return _connected(self)


@lru_cache(maxsize=8)
def _connected(store: S3Store) -> Any:
    host = store.endpoint or f"s3.{store.region}.amazonaws.com"
    return need("pyarrow.fs", extra="batch").S3FileSystem(
        proxy_options=proxy_for(f"{store.scheme or 'https'}://{host}"),
        region=store.region,
        scheme=store.scheme,
        endpoint_override=store.endpoint,
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
    )


@dataclass(frozen=True, slots=True)
class S3File:
    """An S3 object, identified by its size, ETag and modification time."""

    store: S3Store
    key: str  # with the bucket
    short: str
    size: int
    identity: str

    @property
    def name(self) -> str:
        """The `s3://` URL."""
        return SCHEME + self.key

    @property
    def path(self) -> Path | None:
        """None: the file is not on this machine."""
        return None

    def open(self) -> Any:
        """Open the object, which is read in ranges; InputNotFound if it cannot be read."""
        with s3_errors(self.name):
            return self.store.system.open_input_file(self.key)

    def now(self) -> str:
        """The current identity."""
        with plain_errors(), self.store.system.open_input_file(self.key) as stream:
            return _identity(stream)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, accessed with the credentials of the environment."""

    store: S3Store
    name: str

    @classmethod
    def of(cls, address: str) -> tuple[Bucket, str]:
        """The bucket and the key of `s3://bucket/key`; WrongUsage if the address is invalid or contains credentials."""
        name, _, key = address.removeprefix(SCHEME).partition("/")
        if not is_bucket(name):
            raise WrongUsage(
                "an S3 address has the form s3://bucket/key, without credentials",
                remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use ~/.aws/credentials",
            )
        with s3_errors(address):
            return cls(S3Store.of(name), name), key

    def list(self, prefix: str) -> list[str]:
        """The keys of all objects below a prefix that ends at a `/`; InputNotFound if the bucket cannot be listed."""
        fs = need("pyarrow.fs", extra="batch")
        base = f"{self.name}/{prefix}".rstrip("/")
        selector = fs.FileSelector(base, recursive=True, allow_not_found=bool(prefix))
        with s3_errors(SCHEME + base):
            entries = self.store.system.get_file_info(selector)
        return [info.path.partition("/")[2] for info in entries if info.type == fs.FileType.File]

    def file(self, key: str) -> S3File | None:
        """The object with exactly this key, None if it does not exist."""
        fs = need("pyarrow.fs", extra="batch")
        path = f"{self.name}/{key}"
        with s3_errors(SCHEME + path):
            info = self.store.system.get_file_info(path)
        return self.open(key, key.rsplit("/", 1)[-1]) if info.type == fs.FileType.File else None

    def open(self, key: str, short: str) -> S3File:
        """The object with its size and identity; InputNotFound if it cannot be read."""
        path = f"{self.name}/{key}"
        with s3_errors(SCHEME + path), self.store.system.open_input_file(path) as stream:
            return S3File(self.store, path, short, stream.size(), _identity(stream))


def _identity(stream: Any) -> str:
    metadata = {key.lower(): value.decode(errors="replace") for key, value in (stream.metadata() or {}).items()}
    known = [metadata[key] for key in ("etag", "last-modified") if key in metadata]
    return f"{stream.size()} bytes of {' of '.join(known)}"


@contextmanager
def s3_errors(address: str) -> Iterator[None]:
    """Convert errors of S3 to InputNotFound for `address`."""
    try:
        with plain_errors():
            yield
    except (OSError, ValueError) as error:  # ValueError: an invalid endpoint or key
        raise InputNotFound(
            f"{address} cannot be read: {error}",
            remedy=f"check the address and the credentials; for a store other than AWS also {ENDPOINTS[1]}",
        ) from error


@contextmanager
def plain_errors() -> Iterator[None]:
    """Remove credentials from the messages of errors."""
    try:
        yield
    except OSError as error:
        text = str(error)
        for name in SECRETS:
            text = text.replace(os.environ.get(name) or "\0", "…")
        raise type(error)(text) from None
