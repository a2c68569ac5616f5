"""Images in ECR: the repository, what lies in it, and who may push there."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from likewise.core.digests import sha256_json
from likewise.core.spec import ModelSpec
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.names import Tags


def tag_of(model: ModelSpec, platform: str, base: str | None, version: str) -> str:
    """The immutable tag: the bundle's digest, and what else makes the image another one."""
    how = {"platform": platform, "base": base, "version": version, "engine": model.engine, "precision": model.precision}
    return f"{model.digest.replace(':', '-')}-{sha256_json(how).removeprefix('sha256:')[:8]}"


def find_repository(aws: Aws, name: str) -> str | None:
    """The repository's address, None where there is none."""
    said = aws.find("ecr", "describe_repositories", repositoryNames=[name])
    return str(said["repositories"][0]["repositoryUri"]) if said else None


def make_repository(aws: Aws, name: str, tags: Tags) -> str:
    """Its address; made with immutable tags where it is missing."""
    found = find_repository(aws, name)
    if found is None:
        aws.make("ecr", "create_repository", repositoryName=name, imageTagMutability="IMMUTABLE", tags=tags)
        found = find_repository(aws, name)
    return str(found)


def remove_repository(aws: Aws, name: str) -> None:
    """Remove it where it is empty."""
    aws.attempt(("missing", "busy"), "ecr", "delete_repository", repositoryName=name)


def find_image(aws: Aws, repository: str, tag: str) -> str | None:
    """The digest that the tag names, None where there is no such image."""
    asked = {"repositoryName": repository, "imageIds": [{"imageTag": tag}]}
    said = aws.find("ecr", "describe_images", **asked)
    return str(said["imageDetails"][0]["imageDigest"]) if said and said["imageDetails"] else None


def remove_image(aws: Aws, repository: str, tag: str) -> None:
    """Delete the image with this tag, where it is there; its layers go when no other image has them."""
    aws.find("ecr", "batch_delete_image", repositoryName=repository, imageIds=[{"imageTag": tag}])


def credentials(aws: Aws) -> tuple[str, str]:
    """User and password for a push; they last twelve hours and are written down nowhere."""
    said: Mapping[str, Any] = aws.call("ecr", "get_authorization_token")["authorizationData"][0]
    user, _, password = base64.b64decode(said["authorizationToken"]).decode().partition(":")
    return user, password
