"""`s3://` as the input of a job on Spark: the executors read it themselves, with credentials of their own."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.s3 import s3_server
from tests.support.spark.cluster import java_env

from likewise import api
from likewise.batch import ScoreOptions
from likewise.batch.listing import list_files

pytest_plugins = ("tests.support.spark.fixtures",)
pytestmark = [
    pytest.mark.xdist_group("spark"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
SECRETS = {"AWS_ACCESS_KEY_ID": "the-drivers-id", "AWS_SECRET_ACCESS_KEY": "the-drivers-secret"}
NO_OTHERS = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    "AWS_CONFIG_FILE": "/nowhere",
}
# what executors would find of another endpoint and region is not asked
EXECUTORS = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_REGION": "",
    "AWS_ACCESS_KEY_ID": "the-executors-id",
    "AWS_SECRET_ACCESS_KEY": "the-executors-secret",
}
ROWS = 300
OPEN = """
import pickle, sys
print(len(pickle.load(sys.stdin.buffer).open().read()))
"""


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as url:
        yield url


@pytest.fixture(scope="module")
def bucket(endpoint: str) -> str:
    """The address of a bucket with files of each format."""
    client = boto3.Session("an-id", "a-secret", region_name="eu-central-1").client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    for name, content in files().items():
        client.put_object(Bucket="data", Key=f"in/{name}", Body=content)
    return "s3://data/in"


def files() -> dict[str, bytes]:
    """Data files, bad rows among them, and some that are no data."""
    lines = [b'%d,"a film, %s"\n' % (row, b"good " * (row % 7)) for row in range(ROWS)]
    lines[50] = b"50,bad \xff byte\n"
    table = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": range(ROWS), "text": [f"text {row}" for row in range(ROWS)]}), table)
    return {
        "csv/a b.csv": b"id,text\n" + b"".join(lines),
        "csv/deep/c.csv.gz": gzip.compress(b"id,text\n" + b"".join(reversed(lines)), mtime=0),
        "csv/_tmp/d.csv": b"x",
        "lines.jsonl": b"".join(json.dumps({"text": f"t{row}"}).encode() + b"\n" for row in range(ROWS)),
        "table.parquet": table.getvalue().to_pybytes(),
    }


@pytest.fixture
def driver(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process knows where S3 is, and who it is."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**SECRETS, "AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "eu-central-1"}.items():
        monkeypatch.setenv(name, value)


def everything(output: Path) -> dict[str, object]:
    found: dict[str, object] = {path.name: path.read_bytes() for path in output.glob("part-*")}
    return {**found, "bad": pq.read_table(output / "_quarantine.parquet").to_pylist()}


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(("source", "rows"), [("csv/", 2 * ROWS), ("*.jsonl", ROWS), ("table.parquet", ROWS)])
def test_the_output_is_the_local_runners(
    spark: Any,
    text_model: api.Bundle,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    rows: int,
) -> None:
    for name, value in EXECUTORS.items():  # as spark.executorEnv.NAME sets it
        monkeypatch.setitem(spark.sparkContext.environment, name, value)
    reports = {}
    for runner in ("spark", "local"):
        options = ScoreOptions(runner=runner, window=64)
        reports[runner] = api.score(text_model, f"{bucket}/{source}", tmp_path / runner, options=options)
    assert reports["spark"].rows_in == reports["local"].rows_in == rows
    assert everything(tmp_path / "spark") == everything(tmp_path / "local")
    assert reports["spark"].rows_quarantined == reports["local"].rows_quarantined


@pytest.mark.usefixtures("driver", "java")
def test_an_executor_that_may_not_read_says_so(text_model: api.Bundle, bucket: str, tmp_path: Path) -> None:
    """The driver's credentials stay where they are."""
    command = [sys.executable, "-m", "likewise.cli", "score", str(text_model.path), f"{bucket}/table.parquet"]
    command += ["-o", str(tmp_path / "out"), "--json", "--runner", "spark", "--master", "local[2]"]
    confs = {f"spark.executorEnv.{name}": value for name, value in {**dict.fromkeys(SECRETS, ""), **NO_OTHERS}.items()}
    for name, value in {"spark.ui.enabled": "false", **confs}.items():
        command += ["--conf", f"{name}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | java_env(tmp_path), check=False)
    assert done.stdout, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert said["error"]["code"] == "INPUT_NOT_FOUND", (said, done.stderr[-3000:])
    assert "on an executor: s3://data/in/table.parquet" in said["error"]["cause"]
    assert "credentials" in said["error"]["remedy"]
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS.values())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


@pytest.mark.usefixtures("driver")
def test_what_travels_is_where_and_not_who(endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.replace("//", "//somebody:a-password@"))
    (found,) = list_files(f"{bucket}/lines.jsonl", any_suffix=False)
    found.open().close()  # a connection that is open stays here
    sent = pickle.dumps(found)
    assert not any(secret.encode() in sent for secret in (*SECRETS.values(), "a-password"))
    theirs = {"AWS_ACCESS_KEY_ID": "theirs", "AWS_SECRET_ACCESS_KEY": "of theirs", "PATH": os.environ["PATH"]}
    read = subprocess.run([sys.executable, "-c", OPEN], input=sent, env=theirs, capture_output=True, check=False)
    assert int(read.stdout) == found.size, read.stderr
