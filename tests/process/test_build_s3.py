"""`s3://…`: a model in a bucket, behind S3's own wire (a local server), gives the bundle that its folder gives."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from tests.support.s3 import s3_server
from tests.support.sentiment_store import Store, run

pytestmark = pytest.mark.slow
LIKEWISE = [sys.executable, "-m", "likewise.cli"]
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    with s3_server(tmp_path / "s3.log") as url:
        yield url


def test_a_model_in_a_bucket(store: Store, endpoint: str, tmp_path: Path) -> None:
    pipelines = [p.parent for p in store.folder.glob("mlartifacts/**/MLmodel") if "likewise:" in p.read_text()]
    [folder] = [p for p in pipelines if (p / "serving_input_example.json").is_file()]
    env = store.env | KEYS | {"AWS_ENDPOINT_URL": endpoint, "MLFLOW_S3_ENDPOINT_URL": endpoint}
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="models")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        client.upload_file(str(path), "models", f"sentiment/{path.relative_to(folder).as_posix()}")

    def digest(uri: str, output: str) -> str:
        done = run([*LIKEWISE, "bundle", uri, "-o", output, "--json"], tmp_path, env)
        return str(json.loads(done.stdout)["digest"])

    assert digest("s3://models/sentiment", "from-s3") == digest(str(folder), "from-folder")
    missing = subprocess.run(
        [*LIKEWISE, "bundle", "s3://models/nothing", "-o", "none", "--json"], cwd=tmp_path, env=env, capture_output=True
    )
    assert missing.returncode == 1
    assert json.loads(missing.stdout)["error"]["code"] in ("MODEL_NOT_FOUND", "MODEL_INVALID")
