"""Batch transform: objects of S3 through a container of their own, `.out` beside each name.

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

from likewise.targets.sagemaker.emulator.account import JOBS, Account, Unreadable, split_uri
from likewise.targets.sagemaker.emulator.catalog import Catalog, RequestParams, listed, now, refusal
from likewise.targets.sagemaker.emulator.endpoints import BROKE, STARTUP_S
from likewise.targets.sagemaker.emulator.fleet import Fleet, Running, Unfit
from likewise.targets.sagemaker.emulator.wire import AwsError

logger = logging.getLogger(__name__)

MB = 1024 * 1024
DEFAULTS: dict[str, Any] = {"MaxConcurrentTransforms": 1, "MaxPayloadInMB": 6, "BatchStrategy": "MULTI_RECORD"}
STRATEGIES = {"MULTI_RECORD": "MultiRecord", "SINGLE_RECORD": "SingleRecord"}
TIMEOUT_S, RETRIES = 600, 3
_WORN = frozenset({429, 500, 502, 503, 504})


class JobFailed(Exception):
    """Why a job fails."""


@dataclass
class TransformJob:
    """One, as it stands."""

    name: str
    arn: str
    asked: RequestParams
    status: str = "InProgress"
    failure: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    created: datetime = field(default_factory=now)
    stopping: threading.Event = field(default_factory=threading.Event)

    def end(self, status: str, failure: str | None = None) -> None:
        """Done, in one way or another."""
        self.status, self.failure, self.ended = status, failure, now()


@dataclass(frozen=True)
class Pace:
    """How a job cuts and sends, from the request or from the container's `/execution-parameters`."""

    strategy: str
    payload_bytes: int
    at_once: int


class Transforms:
    """One region's.  Methods named as SageMaker's operations take and give what those do.  Thread-safe."""

    def __init__(self, catalog: Catalog, fleet: Fleet) -> None:
        self._catalog = catalog
        self._account: Account = catalog.account
        self._fleet = fleet
        self._jobs: dict[str, TransformJob] = {}
        self._threads: list[threading.Thread] = []

    def create_transform_job(self, asked: RequestParams) -> RequestParams:
        name = asked["TransformJobName"]
        arn = self._account.arn("transform-job", name)
        self._catalog.model(asked["ModelName"])
        _rehearsable(asked)
        with self._catalog.lock:
            if name in self._jobs:
                raise AwsError(
                    "ResourceInUse",
                    "Job name must be unique within an AWS account and region, and a job with this name already "
                    f"exists ({arn})",
                )
            job = self._jobs[name] = TransformJob(name, arn, asked)
            self._catalog.know(arn, asked)
        thread = threading.Thread(target=self._run, args=(job,), name="likewise-rehearsal-job", daemon=True)
        self._threads.append(thread)
        thread.start()
        return {"TransformJobArn": arn}

    def describe_transform_job(self, asked: RequestParams) -> RequestParams:
        job = self._found(asked["TransformJobName"])
        said = {
            **{name: value for name, value in job.asked.items() if name != "Tags"},
            "TransformJobArn": job.arn,
            "TransformJobStatus": job.status,
            "FailureReason": job.failure,
            "CreationTime": job.created,
            "TransformStartTime": job.started,
            "TransformEndTime": job.ended,
        }
        return {name: value for name, value in said.items() if value is not None}

    def stop_transform_job(self, asked: RequestParams) -> None:
        job = self._found(asked["TransformJobName"])
        with self._catalog.lock:
            if job.status != "InProgress":
                raise refusal(f"The request was rejected because the transform job is in status {job.status}.")
            job.status = "Stopping"
        job.stopping.set()

    def list_transform_jobs(self, asked: RequestParams) -> RequestParams:
        def more(job: TransformJob) -> RequestParams:
            return {"TransformJobStatus": job.status, "LastModifiedTime": job.ended or job.created}

        return listed("TransformJobSummaries", "TransformJob", self._jobs.items(), asked, more, "TransformJobStatus")

    def close(self) -> None:
        """Every job is stopped, and has ended."""
        for job in self._jobs.values():
            job.stopping.set()
        for thread in self._threads:
            thread.join()

    def _found(self, name: str) -> TransformJob:
        with self._catalog.lock:
            if name not in self._jobs:
                raise AwsError("ResourceNotFound", f"Could not find requested job with name: {name}")
            return self._jobs[name]

    def _run(self, job: TransformJob) -> None:
        try:
            keys = self._keys(job)
            running = self._started(job)
        except (JobFailed, Unreadable, Unfit) as error:
            kind = "AlgorithmError" if isinstance(error, Unfit) else "ClientError"
            job.end("Failed", f"{kind}: {error}"[:1024])
            return
        job.started = now()
        try:
            self._all_objects(job, running, keys)
        except (JobFailed, Unreadable) as error:
            job.end("Failed", f"ClientError: {error}"[:1024])
        except Exception:
            logger.exception("the rehearsal broke on the job %s", job.name)
            job.end("Failed", f"InternalServerError: {BROKE}")
        else:
            job.end("Stopped" if job.stopping.is_set() else "Completed")
        finally:
            self._fleet.stop(running)

    def _started(self, job: TransformJob) -> Running:
        asked = job.asked
        extra = {
            **asked.get("Environment", {}),
            "SAGEMAKER_BATCH": "true",
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": str(asked.get("MaxPayloadInMB", DEFAULTS["MaxPayloadInMB"])),
        }
        model = self._catalog.model(asked["ModelName"]).asked
        what = f"container of transform job {job.name}"
        return self._fleet.start(model, what=what, group=JOBS, stream=job.name, extra=extra, wait_s=STARTUP_S)

    def _keys(self, job: TransformJob) -> list[str]:
        source = _source(job)
        if keys := self._account.keys(source):
            return keys
        raise JobFailed(f"No S3 objects found under S3 URL {source}")

    def _all_objects(self, job: TransformJob, running: Running, keys: Sequence[str]) -> None:
        bucket, prefix = split_uri(_source(job))
        pace, output = _pace(job.asked, running), job.asked["TransformOutput"]["S3OutputPath"].rstrip("/")
        folder = prefix if prefix.endswith("/") or not prefix else prefix.rpartition("/")[0] + "/"
        failed: list[str] = []
        for key in keys:  # one that fails leaves the others their output
            try:
                answer = _transformed(job, running, self._account.read(f"s3://{bucket}/{key}"), pace)
            except JobFailed as error:
                failed.append(f"{key}: {error}")
                continue
            if job.stopping.is_set():
                return
            self._account.write(f"{output}/{key.removeprefix(folder).lstrip('/')}.out", answer)
        if failed:
            raise JobFailed("; ".join(failed))


def _source(job: TransformJob) -> str:
    return str(job.asked["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"])


def _rehearsable(asked: RequestParams) -> None:
    """Refuse what the rehearsal would answer otherwise than SageMaker."""
    filters = asked.get("DataProcessing", {})
    if filters.get("JoinSource", "None") != "None" or {"InputFilter", "OutputFilter"} & filters.keys():
        raise refusal("The rehearsal does not join or filter records (DataProcessing).")
    source = asked["TransformInput"]["DataSource"]["S3DataSource"]
    if source["S3DataType"] != "S3Prefix" or asked["TransformInput"].get("SplitType", "None") not in ("None", "Line"):
        raise refusal("The rehearsal reads S3Prefix, split by Line or not at all.")


def _pace(asked: RequestParams, running: Running) -> Pace:
    told: dict[str, Any] = {}
    try:
        reply = running.ask("GET", "/execution-parameters", None, {}, timeout_s=10)
        told = json.loads(reply.body) if reply.status == 200 else {}
    except (OSError, http.client.HTTPException, ValueError):
        logger.info("the container has no execution parameters")  # it need not
    chosen = {name: asked.get(name, told.get(name, default)) for name, default in DEFAULTS.items()}
    strategy = STRATEGIES.get(chosen["BatchStrategy"], chosen["BatchStrategy"])
    size = int(chosen["MaxPayloadInMB"]) or 100
    return Pace(strategy, size * MB, int(chosen["MaxConcurrentTransforms"]) or DEFAULTS["MaxConcurrentTransforms"])


def _transformed(job: TransformJob, running: Running, body: bytes, pace: Pace) -> bytes:
    asked = job.asked
    if asked["TransformInput"].get("CompressionType") == "Gzip":
        body = gzip.decompress(body)
    pieces = list(_pieces(body, asked["TransformInput"].get("SplitType", "None"), pace))
    with ThreadPoolExecutor(pace.at_once) as pool:
        answers = list(pool.map(partial(_answer, job, running), pieces))
    line = asked["TransformOutput"].get("AssembleWith", "None") == "Line"
    return b"".join(answer if not line or answer.endswith(b"\n") else answer + b"\n" for answer in answers)


def _pieces(body: bytes, split: str, pace: Pace) -> Iterator[bytes]:
    """The requests that an object makes: the whole of it, a line, or as many lines as a payload holds."""
    records: Sequence[bytes] = (
        [body] if split == "None" else [each for each in body.splitlines(keepends=True) if each.strip()]
    )
    held: list[bytes] = []
    size = 0
    for record in records:
        if len(record) > pace.payload_bytes:
            raise JobFailed(f"A record of {len(record)} bytes is larger than MaxPayloadInMB")
        if held and (pace.strategy == "SingleRecord" or size + len(record) > pace.payload_bytes):
            yield b"".join(held)
            held, size = [], 0
        held.append(record)
        size += len(record)
    if held:
        yield b"".join(held)


def _answer(job: TransformJob, running: Running, piece: bytes) -> bytes:
    """The container's answer; JobFailed after as many tries as the job allows."""
    asked, client = job.asked, job.asked.get("ModelClientConfig", {})
    headers = {
        "Content-Type": asked["TransformInput"].get("ContentType", "application/octet-stream"),
        "Accept": asked["TransformOutput"].get("Accept", "*/*"),
    }
    tries, said = 1 + client.get("InvocationsMaxRetries", RETRIES), ""
    for number in range(tries):
        if job.stopping.is_set():
            return b""
        try:
            timeout_s = client.get("InvocationsTimeoutInSeconds", TIMEOUT_S)
            reply = running.ask("POST", "/invocations", piece, headers, timeout_s=timeout_s)
        except (OSError, http.client.HTTPException) as error:
            said = str(error)
        else:
            if reply.status // 100 == 2:
                return reply.body
            said = f"Bad HTTP status returned from invoke: {reply.status}: {reply.body.decode(errors='replace')}"
            if reply.status not in _WORN:
                break
        time.sleep(min(1.0, 0.1 * 2**number))
    raise JobFailed(f"See job logs for more information. {said}")
