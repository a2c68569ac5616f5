"""Batch transform jobs: send objects in S3 to a dedicated container and store the results as `NAME.out`.

Source: AWS, "Use Batch Transform to Get Inferences", and "Custom Inference Code with Batch Transform".
"""

from __future__ import annotations

import gzip
import http.client
import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from likewise.targets.sagemaker.emulator.account import JOBS, Account, S3Unavailable, split_uri
from likewise.targets.sagemaker.emulator.catalog import Catalog, RequestParams, list_page, now, validation_error
from likewise.targets.sagemaker.emulator.endpoints import INTERNAL_ERROR, STARTUP_S
from likewise.targets.sagemaker.emulator.fleet import Fleet, Running, StartupFailed
from likewise.targets.sagemaker.emulator.records import Processing, RecordError
from likewise.targets.sagemaker.emulator.wire import AwsError

logger = logging.getLogger(__name__)

MB = 1024 * 1024
DEFAULTS: dict[str, Any] = {"MaxConcurrentTransforms": 1, "MaxPayloadInMB": 6, "BatchStrategy": "MULTI_RECORD"}
STRATEGIES = {"MULTI_RECORD": "MultiRecord", "SINGLE_RECORD": "SingleRecord"}
TIMEOUT_S, RETRIES = 600, 3
_RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})


class JobFailed(Exception):
    """A job has failed; the text is the FailureReason."""


@dataclass
class EmulatedTransformJob:
    """The current state of a job. params: of CreateTransformJob. failure: its FailureReason."""

    name: str
    arn: str
    params: RequestParams
    status: str = "InProgress"
    failure: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    created: datetime = field(default_factory=now)
    stopping: threading.Event = field(default_factory=threading.Event)

    def end(self, status: str, failure: str | None = None) -> None:
        """Set the final status, the failure and the end time."""
        self.status, self.failure, self.ended = status, failure, now()


@dataclass(frozen=True)
class BatchSettings:
    """How a job batches records, by the request or the container's `/execution-parameters`.

    payload_bytes: the largest request.  concurrency: the number of concurrent requests.
    """

    strategy: str
    payload_bytes: int
    concurrency: int


class Transforms:
    """One region's jobs. Methods named like SageMaker operations take their parameters and return their response.

    Thread-safe.
    """

    def __init__(self, catalog: Catalog, fleet: Fleet) -> None:
        self._catalog = catalog
        self._account: Account = catalog.account
        self._fleet = fleet
        self._jobs: dict[str, EmulatedTransformJob] = {}
        self._threads: list[threading.Thread] = []

    def create_transform_job(self, params: RequestParams) -> RequestParams:
        name = params["TransformJobName"]
        arn = self._account.arn("transform-job", name)
        self._catalog.model(params["ModelName"])
        _check_supported(params)
        with self._catalog.lock:
            if name in self._jobs:
                raise AwsError(
                    "ResourceInUse",
                    "Job name must be unique within an AWS account and region, and a job with this name already "
                    f"exists ({arn})",
                )
            job = self._jobs[name] = EmulatedTransformJob(name, arn, params)
            self._catalog.register(arn, params)
        thread = threading.Thread(target=self._run, args=(job,), name="likewise-rehearsal-job", daemon=True)
        self._threads.append(thread)
        thread.start()
        return {"TransformJobArn": arn}

    def describe_transform_job(self, params: RequestParams) -> RequestParams:
        job = self._get(params["TransformJobName"])
        described = {
            **{name: value for name, value in job.params.items() if name != "Tags"},
            "TransformJobArn": job.arn,
            "TransformJobStatus": job.status,
            "FailureReason": job.failure,
            "CreationTime": job.created,
            "TransformStartTime": job.started,
            "TransformEndTime": job.ended,
        }
        return {name: value for name, value in described.items() if value is not None}

    def stop_transform_job(self, params: RequestParams) -> None:
        job = self._get(params["TransformJobName"])
        with self._catalog.lock:
            if job.status != "InProgress":
                raise validation_error(f"The request was rejected because the transform job is in status {job.status}.")
            job.status = "Stopping"
        job.stopping.set()

    def list_transform_jobs(self, params: RequestParams) -> RequestParams:
        def more(job: EmulatedTransformJob) -> RequestParams:
            return {"TransformJobStatus": job.status, "LastModifiedTime": job.ended or job.created}

        return list_page(
            "TransformJobSummaries", "TransformJob", self._jobs.items(), params, more, "TransformJobStatus"
        )

    def close(self) -> None:
        """Stop all jobs and wait until they have ended."""
        for job in self._jobs.values():
            job.stopping.set()
        for thread in self._threads:
            thread.join()

    def _get(self, name: str) -> EmulatedTransformJob:
        with self._catalog.lock:
            if name not in self._jobs:
                raise AwsError("ResourceNotFound", f"Could not find requested job with name: {name}")
            return self._jobs[name]

    def _run(self, job: EmulatedTransformJob) -> None:
        try:
            keys = self._keys(job)
            running = self._started(job)
        except (JobFailed, S3Unavailable, StartupFailed) as error:
            kind = "AlgorithmError" if isinstance(error, StartupFailed) else "ClientError"
            job.end("Failed", f"{kind}: {error}"[:1024])
            return
        job.started = now()
        try:
            self._all_objects(job, running, keys)
        except (JobFailed, S3Unavailable) as error:
            job.end("Failed", f"ClientError: {error}"[:1024])
        except Exception:
            logger.exception("internal error of the rehearsal in the job %s", job.name)
            job.end("Failed", f"InternalServerError: {INTERNAL_ERROR}")
        else:
            job.end("Stopped" if job.stopping.is_set() else "Completed")
        finally:
            self._fleet.stop(running)

    def _started(self, job: EmulatedTransformJob) -> Running:
        params = job.params
        extra = {
            **params.get("Environment", {}),
            "SAGEMAKER_BATCH": "true",
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(params.get("MaxPayloadInMB", DEFAULTS["MaxPayloadInMB"])),
        }
        model = self._catalog.model(params["ModelName"]).params
        what = f"container of transform job {job.name}"
        return self._fleet.start(model, what=what, group=JOBS, stream=job.name, extra=extra, wait_s=STARTUP_S)

    def _keys(self, job: EmulatedTransformJob) -> list[str]:
        source = _source(job)
        if keys := self._account.keys(source):
            return keys
        raise JobFailed(f"No S3 objects found under S3 URL {source}")

    def _all_objects(self, job: EmulatedTransformJob, running: Running, keys: Sequence[str]) -> None:
        bucket, prefix = split_uri(_source(job))
        settings, output = _settings(job.params, running), job.params["TransformOutput"]["S3OutputPath"].rstrip("/")
        folder = prefix if prefix.endswith("/") or not prefix else prefix.rpartition("/")[0] + "/"
        failed: list[str] = []
        for key in keys:  # a failed object does not affect the output of the others
            try:
                output_body = _transformed(job, running, self._account.read(f"s3://{bucket}/{key}"), settings)
            except JobFailed as error:
                failed.append(f"{key}: {error}")
                continue
            if job.stopping.is_set():
                return
            self._account.write(f"{output}/{key.removeprefix(folder).lstrip('/')}.out", output_body)
        if failed:
            raise JobFailed("; ".join(failed))


def _source(job: EmulatedTransformJob) -> str:
    return str(job.params["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"])


def _check_supported(params: RequestParams) -> None:
    """Raise AwsError for requests that the emulator would handle differently from SageMaker."""
    try:
        Processing.of(params)
    except RecordError as error:
        raise validation_error(str(error)) from error
    source = params["TransformInput"]["DataSource"]["S3DataSource"]
    if source["S3DataType"] != "S3Prefix" or params["TransformInput"].get("SplitType", "None") not in ("None", "Line"):
        raise validation_error("The rehearsal reads S3Prefix, split by Line or not at all.")


def _settings(params: RequestParams, running: Running) -> BatchSettings:
    suggested: dict[str, Any] = {}
    try:
        response = running.send("GET", "/execution-parameters", None, {}, timeout_s=10)
        suggested = json.loads(response.body) if response.status == 200 else {}
    except (OSError, http.client.HTTPException, ValueError):
        logger.info("the container has no execution parameters")  # they are optional
    chosen = {name: params.get(name, suggested.get(name, default)) for name, default in DEFAULTS.items()}
    strategy = STRATEGIES.get(chosen["BatchStrategy"], chosen["BatchStrategy"])
    size = int(chosen["MaxPayloadInMB"]) or 100
    concurrency = int(chosen["MaxConcurrentTransforms"]) or DEFAULTS["MaxConcurrentTransforms"]
    return BatchSettings(strategy, size * MB, concurrency)


def _transformed(job: EmulatedTransformJob, running: Running, body: bytes, settings: BatchSettings) -> bytes:
    params, processing = job.params, Processing.of(job.params)
    if params["TransformInput"].get("CompressionType") == "Gzip":
        body = gzip.decompress(body)
    split = params["TransformInput"].get("SplitType", "None")
    try:
        batches = list(_batches(body, split, settings, processing))
        with ThreadPoolExecutor(settings.concurrency) as pool:
            results = list(pool.map(partial(_scored, job, running, processing), batches))
    except RecordError as error:
        raise JobFailed(str(error)) from error
    line = params["TransformOutput"].get("AssembleWith", "None") == "Line"
    return b"".join(result if not line or result.endswith(b"\n") else result + b"\n" for result in results)


def _batches(
    body: bytes, split: str, settings: BatchSettings, processing: Processing
) -> Iterator[Sequence[tuple[bytes, bytes]]]:
    """Split an object into requests: the entire object, one line each, or as many lines as fit.

    Each request is a list of records, and of what is sent to the model of each.
    """
    records: Sequence[bytes] = [body] if split == "None" else body.splitlines(keepends=True)
    batch: list[tuple[bytes, bytes]] = []
    size = 0
    for record in records:
        sent = processing.sent(record)
        if len(sent) > settings.payload_bytes:
            raise JobFailed(f"A record of {len(sent)} bytes is larger than MaxPayloadInMB")
        if batch and (settings.strategy == "SingleRecord" or size + len(sent) > settings.payload_bytes):
            yield batch
            batch, size = [], 0
        batch.append((record, sent))
        size += len(sent)
    if batch:
        yield batch


def _scored(
    job: EmulatedTransformJob, running: Running, processing: Processing, batch: Sequence[tuple[bytes, bytes]]
) -> bytes:
    """The output for one request."""
    response = _invoke(job, running, b"".join(sent for _, sent in batch))
    return b"" if job.stopping.is_set() else processing.written([record for record, _ in batch], response)


def _invoke(job: EmulatedTransformJob, running: Running, payload: bytes) -> bytes:
    """The container's response to a payload; JobFailed after as many attempts as the job allows."""
    params, client = job.params, job.params.get("ModelClientConfig", {})
    headers = {
        "Content-Type": params["TransformInput"].get("ContentType", "application/octet-stream"),
        "Accept": params["TransformOutput"].get("Accept", "*/*"),
    }
    attempts, problem = 1 + client.get("InvocationsMaxRetries", RETRIES), ""
    for number in range(attempts):
        if job.stopping.is_set():
            return b""
        try:
            timeout_s = client.get("InvocationsTimeoutInSeconds", TIMEOUT_S)
            response = running.send("POST", "/invocations", payload, headers, timeout_s=timeout_s)
        except (OSError, http.client.HTTPException) as error:
            problem = str(error)
        else:
            if response.status // 100 == 2:
                return response.body
            text = response.body.decode(errors="replace")
            problem = f"Bad HTTP status returned from invoke: {response.status}: {text}"
            if response.status not in _RETRIED_STATUSES:
                break
        time.sleep(min(1.0, 0.1 * 2**number))
    raise JobFailed(f"See job logs for more information. {problem}")
