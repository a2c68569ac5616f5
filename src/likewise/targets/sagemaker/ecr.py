"""Images to ECR by name, `ecr:/REGION/REPOSITORY[:TAG]`: the repository and the password are found, or made."""

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
    """Push the image called `name` here; the repository is made where it is missing, with tags that never move.

    Without a tag it gets its bundle's digest as one.  Raises WrongUsage, TargetUnavailable, and what `push_image` does.
    """
    found = _ADDRESS.fullmatch(to)
    if found is None:
        raise WrongUsage(f"{to!r} is no address in ECR", remedy=FORM)
    aws = Aws(SageMakerAddress.of(f"sagemaker:/{found['region']}"))
    address = registry.make_repository(aws, found["repository"], [])
    tag = f":{found['tag']}" if found["tag"] else ""
    return push_image(name, address + tag, credentials=lambda _: registry.credentials(aws), report=report)
