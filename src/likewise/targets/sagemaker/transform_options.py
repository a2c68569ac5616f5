"""Options of a batch transform job, with MLflow's names where MLflow has the option."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from likewise.core.errors import WrongUsage
from likewise.core.option_fields import coerce, option, refuse_unknown
from likewise.targets.sagemaker.sagemaker_options import SageMakerOptions

CSV = "text/csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformOptions:
    """Each field's `metadata["help"]` is its help text; None uses the container's setting, or AWS's default.

    The options of the model, its image and its instances are in SageMakerOptions.
    """

    content_type: str = option("text/csv", "Format of the input: text/csv, application/jsonlines or application/json.")
    header: Literal["present", "absent"] | None = option(
        None, "Whether each CSV object begins with the names of its columns; by default the container decides."
    )
    split_type: Literal["None", "Line"] = option("Line", "How objects are split into records: Line or None.")
    batch_strategy: Literal["MultiRecord", "SingleRecord"] | None = option(
        None, "MultiRecord: as many records per request as fit; SingleRecord: a single one."
    )
    assemble_with: Literal["None", "Line"] = option(
        "Line", "How the results of an object's records are joined: by line breaks (Line), or without (None)."
    )
    accept: str | None = option(
        "application/jsonlines", "Format of the output; with assemble_with=Line, application/jsonlines or text/csv."
    )
    compression_type: Literal["None", "Gzip"] = option("None", "Compression of the input.")
    input_data_type: Literal["S3Prefix", "ManifestFile"] = option(
        "S3Prefix", "Whether INPUT is a prefix of objects (S3Prefix), or a file that lists objects (ManifestFile)."
    )
    input_filter: str | None = option(None, "JSONPath of the part of each record that is sent to the model.")
    output_filter: str | None = option(None, "JSONPath of the part of each record to write, after join_resource.")
    join_resource: Literal["Input", "None"] | None = option(None, "Input: write each record with its prediction.")
    max_payload_mb: int | None = option(None, "Largest request in MB, up to 100.")
    max_concurrent_transforms: int | None = option(None, "Concurrent requests per instance.")
    invocation_timeout_s: int | None = option(None, "Timeout of a request in seconds, up to 3600.")
    invocation_retries: int | None = option(None, "Retries of a failed request, up to 3.")


def with_header(job: TransformOptions) -> TransformOptions:
    """`job` with `header` as a parameter of its content type.

    Raises WrongUsage for options with which rows would be lost, and for a join that SageMaker rejects.
    """
    media = job.content_type.partition(";")[0].strip().lower()
    if job.header is not None and media != CSV:
        raise WrongUsage(f"header is {job.header!r}, but the input is {media}", remedy="omit header, or use text/csv")
    content_type = job.content_type if job.header is None else f"{job.content_type}; header={job.header}"
    declared = content_type.replace(" ", "").replace('"', "").lower()
    if job.split_type == "Line" and ";header=present" in declared:
        raise WrongUsage(
            "the objects are split by line, and only the first part of each has the header: every other part would "
            "lose its first row",
            remedy="use -C split_type=None, or remove the header from the objects and use -C header=absent",
        )
    accepted = (job.accept or "").partition(";")[0].strip().lower()
    if job.join_resource == "Input" and (media == CSV) != (accepted == CSV):
        raise WrongUsage(
            f"input and output can only be joined in one format, but they are {media} and {accepted or 'unknown'}",
            remedy=f"use -C accept={media}",
        )
    return replace(job, content_type=content_type)


def split(values: Mapping[str, object]) -> tuple[SageMakerOptions, TransformOptions]:
    """Separate the options of the two classes by name; raises WrongUsage as `coerce` does."""
    own = {each.name for each in fields(TransformOptions)}
    known = {each.name for each in fields(SageMakerOptions)}
    refuse_unknown(values, own | known)
    job = coerce(TransformOptions, {name: value for name, value in values.items() if name in own})
    return coerce(SageMakerOptions, {name: value for name, value in values.items() if name in known}), job
