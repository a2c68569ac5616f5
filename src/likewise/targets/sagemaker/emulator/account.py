"""The account that is rehearsed in: moto's S3, IAM and CloudWatch Logs, asked over their own wire.

What the emulator asks for itself is told by its user agent, and is neither counted nor failed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from likewise.core.extras import need
from likewise.targets.sagemaker.emulator.containers import Container

ID = "123456789012"  # moto's
AGENT = "likewise-rehearsal"
PRINCIPAL = "sagemaker.amazonaws.com"
ENDPOINTS, JOBS = "/aws/sagemaker/Endpoints", "/aws/sagemaker/TransformJobs"
MOST_EVENTS = 1000  # a call
_KNOWN = frozenset({"ImageAlreadyExistsException", "ImageTagAlreadyExistsException", "RepositoryNotFoundException"})


class Unreadable(Exception):
    """An object of S3 that is not there, or not in this region; the text says which."""


@dataclass
class _Followed:
    group: str
    stream: str
    container: Container
    lines: int = 0


class Account:
    """One region of it; url: of the emulator."""

    def __init__(self, url: str, region: str) -> None:
        self.region = region
        self._url = url
        self._lock = threading.Lock()
        self._followed: list[_Followed] = []
        self._clients: dict[str, Any] = {}
        self._creating = threading.Lock()

    def arn(self, kind: str, name: str) -> str:
        """Of one of SageMaker's resources."""
        return f"arn:aws:sagemaker:{self.region}:{ID}:{kind}/{name.lower()}"

    # --- roles -------------------------------------------------------------------------------------------------------

    def role_problem(self, arn: str) -> str | None:
        """Why SageMaker cannot be the role, as it says it."""
        try:
            role = self._client("iam").get_role(RoleName=arn.rpartition("/")[2])["Role"]
        except self._errors.ClientError:
            role = None
        if role is not None and role["Arn"] == arn and _trusts(role["AssumeRolePolicyDocument"]):
            return None
        return (
            f"Could not assume role {arn}. Please ensure that the role exists and allows principal "
            f"'{PRINCIPAL}' to assume the role."
        )

    # --- objects -----------------------------------------------------------------------------------------------------

    def read(self, uri: str) -> bytes:
        """The object; Unreadable."""
        bucket, key = split_uri(uri)
        try:
            self._in_this_region(bucket)
            return bytes(self._client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
        except self._errors.ClientError as error:
            raise Unreadable(f"{uri}: {error.response['Error']['Message']}") from error

    def require(self, uri: str) -> None:
        """Unreadable, unless the object is there."""
        bucket, key = split_uri(uri)
        try:
            self._in_this_region(bucket)
            self._client("s3").head_object(Bucket=bucket, Key=key)
        except self._errors.ClientError as error:
            raise Unreadable(f"{uri}: {error.response['Error']['Message']}") from error

    def write(self, uri: str, body: bytes) -> None:
        """Unreadable where the bucket is not there."""
        bucket, key = split_uri(uri)
        try:
            self._in_this_region(bucket)
            self._client("s3").put_object(Bucket=bucket, Key=key, Body=body)
        except self._errors.ClientError as error:
            raise Unreadable(f"{uri}: {error.response['Error']['Message']}") from error

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys of all objects below a prefix, folders' own apart; Unreadable."""
        bucket, key = split_uri(prefix)
        try:
            self._in_this_region(bucket)
            for page in self._client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
                yield from (each["Key"] for each in page.get("Contents", []) if not each["Key"].endswith("/"))
        except self._errors.ClientError as error:
            raise Unreadable(f"{prefix}: {error.response['Error']['Message']}") from error

    def _in_this_region(self, bucket: str) -> None:
        there = self._client("s3").get_bucket_location(Bucket=bucket)["LocationConstraint"] or "us-east-1"
        if there != self.region:
            raise Unreadable(f"the bucket {bucket} is in {there}")

    # --- repositories ------------------------------------------------------------------------------------------------

    def know_image(self, repository: str, tag: str, manifest: str, media_type: str, digest: str) -> None:
        """ECR tells of an image that is in the registry; of one that it knows, nothing changes."""
        client = self._client("ecr")
        try:
            client.put_image(
                repositoryName=repository,
                imageTag=tag,
                imageManifest=manifest,
                imageManifestMediaType=media_type,
                imageDigest=digest,
            )
        except self._errors.ClientError as error:  # it knows it, or has no such repository
            if error.response["Error"]["Code"] not in _KNOWN:
                raise

    # --- logs --------------------------------------------------------------------------------------------------------

    def follow(self, group: str, stream: str, container: Container) -> None:
        """What the container writes, and has written, is in this stream whenever somebody reads logs."""
        with self._lock:
            self._followed.append(_Followed(group, stream, container))
            self._flush(self._followed[-1])

    def flush(self) -> None:
        """Bring the streams up to now."""
        with self._lock:
            for followed in self._followed:
                self._flush(followed)

    def _flush(self, followed: _Followed) -> None:
        lines = [line for line in followed.container.log().splitlines()[followed.lines :] if line.strip()]
        where = {"logGroupName": followed.group, "logStreamName": followed.stream}
        if followed.lines == 0:
            self._make_stream(where)
        followed.lines += len(lines)
        now = int(time.time() * 1000)
        for at in range(0, len(lines), MOST_EVENTS):
            events = [{"timestamp": now, "message": line} for line in lines[at : at + MOST_EVENTS]]
            self._client("logs").put_log_events(**where, logEvents=events)

    def _make_stream(self, where: dict[str, str]) -> None:
        logs = self._client("logs")
        for make, wanted in ((logs.create_log_group, ("logGroupName",)), (logs.create_log_stream, tuple(where))):
            try:
                make(**{name: where[name] for name in wanted})
            except logs.exceptions.ResourceAlreadyExistsException:
                continue

    @cached_property
    def _session(self) -> Any:
        return need("boto3", extra="aws").Session("rehearsal", "rehearsal", region_name=self.region)

    @property
    def _errors(self) -> Any:
        return need("botocore.exceptions", extra="aws")

    def _client(self, service: str) -> Any:
        """Its client, which several threads may use, though only one may make it."""
        with self._creating:
            if service not in self._clients:
                config = need("botocore.config", extra="aws").Config(
                    user_agent_extra=AGENT, s3={"addressing_style": "path"}, retries={"max_attempts": 0}
                )
                self._clients[service] = self._session.client(service, endpoint_url=self._url, config=config)
            return self._clients[service]


def split_uri(uri: str) -> tuple[str, str]:
    """(`bucket`, `key`) of `s3://bucket/key`."""
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")


def _trusts(policy: Any) -> bool:
    """Whether a role's trust policy names SageMaker."""
    document = json.loads(policy) if isinstance(policy, str) else policy
    statements = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    for statement in statements:
        named = statement.get("Principal", {})
        services = named.get("Service", []) if isinstance(named, dict) else named
        if statement["Effect"] == "Allow" and PRINCIPAL in ([services] if isinstance(services, str) else services):
            return True
    return False
