"""The bundle as `model.tar.gz` in S3, for an image that does not contain it."""

from __future__ import annotations

from pathlib import Path

from likewise.bundles.archive import pack
from likewise.bundles.open import open_bundle
from likewise.core.errors import BundleTampered
from likewise.core.scratch import scratch_folder
from likewise.targets.sagemaker.aws import Aws

ARCHIVE = "model.tar.gz"
_DIGEST = "likewise-bundle"  # key in the S3 object's metadata
_DEFAULT_REGION = "us-east-1"  # the one region that CreateBucket does not accept as a LocationConstraint


def default_bucket(region: str, account: str) -> str:
    """The bucket that the SageMaker SDK uses by default; AWS's managed policies let roles read it."""
    return f"sagemaker-{region}-{account}"


def key_of(name: str, digest: str) -> str:
    """The S3 key of a deployment's archive."""
    return f"likewise/{name}/{digest.removeprefix('sha256:')}/{ARCHIVE}"


def is_archive_of(url: str, name: str) -> bool:
    """Whether the URL of a model's data is one that this deployment uploads to."""
    return url.startswith("s3://") and f"/likewise/{name}/" in url and url.endswith(ARCHIVE)


def create_bucket(aws: Aws, bucket: str) -> None:
    """Create the bucket if it does not exist, and block public access to it."""
    if aws.find("s3", "head_bucket", Bucket=bucket) is None:
        region = aws.at.named_region
        location = {} if region == _DEFAULT_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        aws.create("s3", "create_bucket", Bucket=bucket, **location)
    closed = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    aws.call("s3", "put_public_access_block", Bucket=bucket, PublicAccessBlockConfiguration=closed)


def remove_bucket(aws: Aws, bucket: str) -> None:
    """Remove the bucket if it is empty."""
    aws.attempt(("missing", "busy"), "s3", "delete_bucket", Bucket=bucket)


def upload(aws: Aws, bucket: str, key: str, folder: Path, digest: str) -> str:
    """Upload the bundle if it is missing, and return its URL.  BundleTampered if its digest is not the planned one."""
    head = aws.find("s3", "head_object", Bucket=bucket, Key=key)
    if head is None or head["Metadata"].get(_DIGEST) != digest:
        bundle = open_bundle(folder)
        if not bundle.has_digest(digest):
            raise BundleTampered(f"{folder} contains {bundle.build}, not {digest}", remedy="deploy the bundle again")
        with scratch_folder("likewise-scratch-data-") as scratch:
            archive = pack(bundle, scratch / ARCHIVE)
            extra = {"Metadata": {_DIGEST: digest}}
            aws.run("s3", "upload_file", lambda s3: s3.upload_file(str(archive), bucket, key, ExtraArgs=extra))
    return f"s3://{bucket}/{key}"


def remove(aws: Aws, url: str) -> None:
    """Delete the S3 object if it exists."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    aws.attempt(("missing",), "s3", "delete_object", Bucket=bucket, Key=key)
