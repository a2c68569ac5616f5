"""The bundle as `model.tar.gz` in S3, for an image that finds it there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from likewise.bundles.archive import pack
from likewise.bundles.open import open_bundle
from likewise.core.errors import BundleTampered
from likewise.targets.sagemaker.aws import Aws

ARCHIVE = "model.tar.gz"
_DIGEST = "likewise-bundle"  # of the object's own metadata
_HOME = "us-east-1"  # the one region that may not be named when a bucket is made


def default_bucket(region: str, account: str) -> str:
    """The bucket that SageMaker's own tools take, which its managed policies allow roles to read."""
    return f"sagemaker-{region}-{account}"


def key_of(name: str, digest: str) -> str:
    """Where a deployment's archive lies in its bucket."""
    return f"likewise/{name}/{digest.removeprefix('sha256:')}/{ARCHIVE}"


def is_ours(url: str, name: str) -> bool:
    """Whether a model's data lies where this deployment puts it."""
    return url.startswith("s3://") and f"/likewise/{name}/" in url and url.endswith(ARCHIVE)


def make_bucket(aws: Aws, bucket: str) -> None:
    """Make it, closed to the public, where it is missing."""
    if aws.find("s3", "head_bucket", Bucket=bucket) is None:
        region = aws.at.named_region
        where = {} if region == _HOME else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        aws.make("s3", "create_bucket", Bucket=bucket, **where)
    closed = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    aws.call("s3", "put_public_access_block", Bucket=bucket, PublicAccessBlockConfiguration=closed)


def remove_bucket(aws: Aws, bucket: str) -> None:
    """Remove it where it is empty."""
    aws.attempt(("missing", "busy"), "s3", "delete_bucket", Bucket=bucket)


def send(aws: Aws, bucket: str, key: str, folder: Path, digest: str) -> str:
    """Put the bundle there, unless it is; its URL.  Raises BundleTampered for another bundle than was planned."""
    said = aws.find("s3", "head_object", Bucket=bucket, Key=key)
    if said is None or said["Metadata"].get(_DIGEST) != digest:
        bundle = open_bundle(folder)
        if bundle.digest != digest:
            raise BundleTampered(f"{folder} holds {bundle.digest}, not {digest}", remedy="deploy the bundle again")
        with tempfile.TemporaryDirectory(prefix="likewise-") as scratch:
            archive = pack(bundle, Path(scratch, ARCHIVE))
            extra = {"Metadata": {_DIGEST: digest}}
            aws.run("s3", "upload_file", lambda s3: s3.upload_file(str(archive), bucket, key, ExtraArgs=extra))
    return f"s3://{bucket}/{key}"


def remove(aws: Aws, url: str) -> None:
    """Delete the object, where it is there."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    aws.find("s3", "delete_object", Bucket=bucket, Key=key)
