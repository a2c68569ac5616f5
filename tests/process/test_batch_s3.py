"""`s3://` inputs of batch jobs, with a local server that implements the S3 protocol."""

from __future__ import annotations

import gzip
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.batch.slow_job import job as slow_job
from tests.support.forked import forked
from tests.support.s3 import s3_server

from likewise.batch.listing import list_files
from likewise.core.errors import InputNotFound

pytestmark = [pytest.mark.xdist_group("s3")]
KEYS = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as url:
        yield url


@pytest.fixture
def bucket(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client, and a bucket `data` with the files of the folder `data`."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL_S3", "MLFLOW_S3_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    client = boto3.Session().client("s3", endpoint_url=endpoint)  # the default session would cache these credentials
    client.create_bucket(Bucket="data")
    for name, content in files(tmp_path / "data").items():
        client.put_object(Bucket="data", Key=f"in/{name}", Body=content)
    yield client
    for item in client.list_objects_v2(Bucket="data")["Contents"]:
        client.delete_object(Bucket="data", Key=item["Key"])
    client.delete_bucket(Bucket="data")


def files(folder: Path) -> dict[str, bytes]:
    """Data files and other files by name; also written to `folder`."""
    csv = {n: b"text,n\n" + b"".join(b"film %d of few words,%d\n" % (k, n) for k in range(3000)) for n in range(3)}
    contents = {
        "csv/a.csv": csv[0],
        "csv/b c.csv": csv[1],
        "csv/deep/c.csv.gz": gzip.compress(csv[2], mtime=0),
        "csv/_SUCCESS": b"",
        "csv/_tmp/d.csv": b"x",
        "lines.jsonl": b"".join(json.dumps({"text": f"t{n}"}).encode() + b"\n" for n in range(500)),
    }
    for name, content in contents.items():
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_bytes(content)
    table = pa.table({"text": [f"t{n}" for n in range(5000)], "n": range(5000)})
    pq.write_table(table, folder / "in/table.parquet", row_group_size=1000)
    return {**contents, "table.parquet": (folder / "in/table.parquet").read_bytes()}


def job(source: str, output: Path, env: dict[str, str] | None = None) -> dict[str, Any]:
    log = output.with_name("log")
    process = forked(slow_job, source, output, out=log, env=os.environ | (env or {}))
    process.join(60)
    return dict(json.loads(log.read_text().splitlines()[-1]))


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ("in/csv/", 9000),
        ("in/csv", 9000),
        ("in/csv/*.csv", 6000),
        ("in/**/[ac].csv*", 6000),
        ("in/lines.jsonl", 500),
        ("in/table.parquet", 5000),
    ],
)
def test_bucket_gives_the_same_output_as_a_folder(bucket: Any, tmp_path: Path, source: str, rows: int) -> None:
    report = job(f"s3://data/{source}", tmp_path / "from-s3")
    assert report.get("rows_ok") == rows, report
    job(str(tmp_path / "data" / source), tmp_path / "from-folder")
    parts = [{p.name: p.read_bytes() for p in (tmp_path / name).glob("*part*")} for name in ("from-s3", "from-folder")]
    assert parts[0] == parts[1] != {}


@pytest.mark.parametrize(
    "source", ["s3://data/in/none.csv", "s3://data/none/", "s3://nobody/x.csv", "s3://nobody/*.csv"]
)
def test_missing_s3_input_is_reported(bucket: Any, tmp_path: Path, source: str) -> None:
    error = job(source, tmp_path / "out")
    assert error["code"] == "INPUT_NOT_FOUND"
    assert "s3://" in error["cause"]
    assert error["remedy"]
    assert not any(secret in json.dumps(error) for secret in ("an-id", "a-secret"))


def test_unreachable_endpoint_is_reported(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://me:a-secret@127.0.0.1:{probe.getsockname()[1]}"
        error = job("s3://data/in.csv", tmp_path / "out", {**KEYS, "AWS_ENDPOINT_URL": endpoint})
    assert error["code"] == "INPUT_NOT_FOUND"
    assert "AWS_ENDPOINT_URL" in error["remedy"]
    assert "a-secret" not in json.dumps(error)


@pytest.mark.parametrize("endpoint", ["localhost:9", "gopher://localhost"])
def test_invalid_endpoint_is_reported(tmp_path: Path, endpoint: str) -> None:
    error = job("s3://data/in.csv", tmp_path / "out", {**KEYS, "AWS_ENDPOINT_URL": endpoint})
    assert error["code"] == "INPUT_NOT_FOUND"


def test_changed_content_of_the_same_size_changes_the_identity(bucket: Any) -> None:
    (before,) = list_files("s3://data/in/lines.jsonl", any_suffix=False)
    assert before.now() == before.identity
    content = bucket.get_object(Bucket="data", Key="in/lines.jsonl")["Body"].read()
    bucket.put_object(Bucket="data", Key="in/lines.jsonl", Body=content.replace(b"t1", b"x1"))
    assert before.now() != before.identity
    bucket.delete_object(Bucket="data", Key="in/lines.jsonl")
    with pytest.raises(FileNotFoundError):
        before.now()
    with pytest.raises(InputNotFound):
        list_files("s3://data/in/lines.jsonl", any_suffix=False)
