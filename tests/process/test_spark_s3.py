"""`s3://` as the input of a job on Spark: the executors read it directly, with their own credentials."""

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
NO_OTHER_CREDENTIALS = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    "AWS_CONFIG_FILE": "/nowhere",
}
# the executors' own endpoint and region must not be used
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
    """The S3 URL of a folder with files of each format."""
    client = boto3.Session("an-id", "a-secret", region_name="eu-central-1").client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    for name, content in files().items():
        client.put_object(Bucket="data", Key=f"in/{name}", Body=content)
    return "s3://data/in"


def files() -> dict[str, bytes]:
    """Data files with some bad rows, and files that are not data."""
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
    """Set the endpoint and credentials of this process, which is the driver."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**SECRETS, "AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "eu-central-1"}.items():
        monkeypatch.setenv(name, value)


def output_of(output: Path) -> dict[str, object]:
    parts: dict[str, object] = {path.name: path.read_bytes() for path in output.glob("part-*")}
    return {**parts, "bad": pq.read_table(output / "_quarantine.parquet").to_pylist()}


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(("source", "rows"), [("csv/", 2 * ROWS), ("*.jsonl", ROWS), ("table.parquet", ROWS)])
def test_output_is_identical_to_the_local_runners(
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
    assert output_of(tmp_path / "spark") == output_of(tmp_path / "local")
    assert reports["spark"].rows_quarantined == reports["local"].rows_quarantined


@pytest.mark.usefixtures("driver", "java")
def test_executor_without_permission_is_reported(text_model: api.Bundle, bucket: str, tmp_path: Path) -> None:
    """The driver's credentials are not passed to executors."""
    command = [sys.executable, "-m", "likewise.cli", "score", str(text_model.path), f"{bucket}/table.parquet"]
    command += ["-o", str(tmp_path / "out"), "--json", "--runner", "spark", "--master", "local[2]"]
    confs = {
        f"spark.executorEnv.{name}": value
        for name, value in {**dict.fromkeys(SECRETS, ""), **NO_OTHER_CREDENTIALS}.items()
    }
    for name, value in {"spark.ui.enabled": "false", **confs}.items():
        command += ["--conf", f"{name}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | java_env(tmp_path), check=False)
    assert done.stdout, done.stderr[-3000:]
    response = json.loads(done.stdout)
    assert response["error"]["code"] == "INPUT_NOT_FOUND", (response, done.stderr[-3000:])
    assert "on a worker: s3://data/in/table.parquet" in response["error"]["cause"]
    assert "credentials" in response["error"]["remedy"]
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS.values())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


@pytest.mark.usefixtures("driver")
def test_pickled_file_has_endpoint_but_no_credentials(
    endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.replace("//", "//somebody:a-password@"))
    (file,) = list_files(f"{bucket}/lines.jsonl", any_suffix=False)
    file.open().close()  # an open connection must not be pickled
    sent = pickle.dumps(file)
    assert not any(secret.encode() in sent for secret in (*SECRETS.values(), "a-password"))
    env = {"AWS_ACCESS_KEY_ID": "another-id", "AWS_SECRET_ACCESS_KEY": "another-secret", "PATH": os.environ["PATH"]}
    read = subprocess.run([sys.executable, "-c", OPEN], input=sent, env=env, capture_output=True, check=False)
    assert int(read.stdout) == file.size, read.stderr
