"""Push an image to `ecr:/REGION/REPOSITORY[:TAG]`: creates the repository and obtains the password."""

from __future__ import annotations

import re
from collections.abc import Callable

from likewise.core.errors import WrongUsage
from likewise.images.push import Pushed, push_image
from likewise.targets.sagemaker import registry
from likewise.targets.sagemaker.address import SageMakerAddress
from likewise.targets.sagemaker.aws import Aws

FORM = "ecr:/REGION/REPOSITORY or ecr:/REGION/REPOSITORY:TAG, such as ecr:/eu-west-1/reviews"
# Source: the pattern of `repositoryName` in ECR's CreateRepository, and of a tag in the OCI distribution specification
_REPOSITORY = r"(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*"
_ADDRESS = re.compile(rf"ecr:/+(?P<region>[^/:]+)/(?P<repository>{_REPOSITORY})(?::(?P<tag>\w[\w.-]{{0,127}}))?")


def push(name: str, to: str, report: Callable[[str], None]) -> Pushed:
    """Push the local image `name`; a missing repository is created, with immutable tags.

    The default tag is the bundle's digest.  Raises WrongUsage, TargetUnavailable, and the errors of `push_image`.
    """
    match = _ADDRESS.fullmatch(to)
    if match is None:
        raise WrongUsage(f"{to!r} is not a valid ECR address", remedy=f"use {FORM}")
    aws = Aws(SageMakerAddress.of(f"sagemaker:/{match['region']}"))
    address = registry.ensure_repository(aws, match["repository"], [])
    tag = f":{match['tag']}" if match["tag"] else ""
    return push_image(name, address + tag, credentials=lambda _: registry.credentials(aws), report=report)
