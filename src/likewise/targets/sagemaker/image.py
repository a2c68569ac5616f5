"""Builds an image and pushes it to ECR, by the package `likewise.images`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from likewise.bundles.open import open_exactly
from likewise.core.spec import ModelSpec
from likewise.images.base import DEFAULT
from likewise.images.build import ImageOptions, build_image
from likewise.images.oci import PLATFORMS
from likewise.images.push import push_image
from likewise.targets.sagemaker.aws import Aws
from likewise.targets.sagemaker.registry import credentials


def build_and_push(aws: Aws, params: Mapping[str, Any], address: str, report: Callable[[str], None]) -> str:
    """Build the image, push it to `address` (REGISTRY/NAME:TAG in ECR) and return its digest.

    params: of the step; `platform` is linux/amd64 or linux/arm64, `base` None for the default, and `telemetry` states
    whether the image includes what exports traces.  Raises the errors of `likewise.images`.
    """
    model = ModelSpec.from_dict(params["model"])
    options = ImageOptions(
        base=params["base"] or DEFAULT,
        platforms=(PLATFORMS[params["platform"]],),
        telemetry=params.get("telemetry", False),  # plans of earlier versions have none
    )
    name = f"likewise:{address.rpartition(':')[2]}"
    built = build_image(open_exactly(model), name, model, options, report=report)
    return push_image(built.name, address, credentials=lambda _: credentials(aws), report=report).digest
