"""ECR: the repository, its images, and credentials for a push."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from likewise.core.digests import sha256_json
from likewise.core.spec import ModelSpec
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.names import Tags


def tag_of(model: ModelSpec, platform: str, base: str | None, version: str, *, telemetry: bool = False) -> str:
    """The image's immutable tag: the build digest, and a digest of everything else that the image depends on."""
    inputs = {
        "platform": platform,
        "base": base,
        "version": version,
        "engine": model.engine,
        "precision": model.precision,
        **({"telemetry": True} if telemetry else {}),
    }
    return f"{model.key.replace(':', '-')}-{sha256_json(inputs).removeprefix('sha256:')[:8]}"


def find_repository(aws: Aws, name: str) -> str | None:
    """The repository's address, None if it does not exist."""
    response = aws.find("ecr", "describe_repositories", repositoryNames=[name])
    return str(response["repositories"][0]["repositoryUri"]) if response else None


def ensure_repository(aws: Aws, name: str, tags: Tags) -> str:
    """The repository's address; created, with immutable image tags, if it does not exist.  tags: of the repository."""
    address = find_repository(aws, name)
    if address is None:
        aws.create("ecr", "create_repository", repositoryName=name, imageTagMutability="IMMUTABLE", tags=tags)
        address = find_repository(aws, name)
    return str(address)


def remove_repository(aws: Aws, name: str) -> None:
    """Remove the repository if it is empty."""
    aws.attempt(("missing", "busy"), "ecr", "delete_repository", repositoryName=name)


def find_image(aws: Aws, repository: str, tag: str) -> str | None:
    """The digest of the image with this tag, None if it does not exist."""
    request = {"repositoryName": repository, "imageIds": [{"imageTag": tag}]}
    response = aws.find("ecr", "describe_images", **request)
    return str(response["imageDetails"][0]["imageDigest"]) if response and response["imageDetails"] else None


def remove_image(aws: Aws, repository: str, tag: str) -> None:
    """Delete the image with this tag if it exists; ECR deletes layers that no other image uses."""
    aws.attempt(("missing",), "ecr", "batch_delete_image", repositoryName=repository, imageIds=[{"imageTag": tag}])


def credentials(aws: Aws) -> tuple[str, str]:
    """User and password for a push; they are valid for twelve hours and are never stored."""
    token: Mapping[str, Any] = aws.call("ecr", "get_authorization_token")["authorizationData"][0]
    user, _, password = base64.b64decode(token["authorizationToken"]).decode().partition(":")
    return user, password
