"""What can be set of a batch transform job, by MLflow's names where it has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from likewise.core.option_fields import coerce, option, refuse_unknown
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformOptions:
    """Each field's `metadata["help"]` is its help text; None leaves it to AWS, or to the container where that says it.

    The model, its image and its instances are of SageMakerOptions.
    """

    content_type: str = option("text/csv", "What the input is: text/csv, application/jsonlines or application/json.")
    split_type: Literal["None", "Line"] = option("Line", "How objects are cut into records: Line, or None for whole.")
    batch_strategy: Literal["MultiRecord", "SingleRecord"] | None = option(
        None, "Records of a request: as many as fit, or one."
    )
    assemble_with: Literal["None", "Line"] = option("Line", "How the answers of an object are put together.")
    accept: str | None = option("application/jsonlines", "What the output is; with Line: lines of JSON, or text/csv.")
    compression_type: Literal["None", "Gzip"] = option("None", "How the input is compressed.")
    input_data_type: Literal["S3Prefix", "ManifestFile"] = option("S3Prefix", "What the input's address names.")
    input_filter: str | None = option(None, "JSONPath of what of each record the model gets.")
    output_filter: str | None = option(None, "JSONPath of what of each joined record is written.")
    join_resource: Literal["Input", "None"] | None = option(None, "Input: each record with its answer.")
    max_payload_mb: int | None = option(None, "Largest request, MB, up to 100.")
    max_concurrent_transforms: int | None = option(None, "Requests at once to an instance.")
    invocation_timeout_s: int | None = option(None, "Seconds for a request, up to 3600.")
    invocation_retries: int | None = option(None, "How often a request that failed is tried again, up to 3.")


def split(given: Mapping[str, object]) -> tuple[SageMakerOptions, TransformOptions]:
    """Options of both kinds, told apart by their names; WrongUsage as `coerce` raises it."""
    own = {each.name for each in fields(TransformOptions)}
    known = {each.name for each in fields(SageMakerOptions)}
    refuse_unknown(given, own | known)
    job = coerce(TransformOptions, {name: value for name, value in given.items() if name in own})
    return coerce(SageMakerOptions, {name: value for name, value in given.items() if name in known}), job
