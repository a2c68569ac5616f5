"""A model in an S3 bucket (a local S3 server) gives the same bundle as its folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from tests.support.processes import likewise
from tests.support.s3 import s3_server
from tests.support.sentiment_store import Store

from likewise.bundles.open import open_bundle

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    with s3_server(tmp_path / "s3.log") as url:
        yield url


def test_model_in_a_bucket(store: Store, endpoint: str, tmp_path: Path) -> None:
    env = store.env | KEYS | {"AWS_ENDPOINT_URL": endpoint, "MLFLOW_S3_ENDPOINT_URL": endpoint}
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="models")
    bundle = open_bundle(store.bundle)
    for path in sorted(p for p in bundle.model_path.rglob("*") if p.is_file()):
        client.upload_file(str(path), "models", f"sentiment/{path.relative_to(bundle.model_path).as_posix()}")

    shutil.copytree(bundle.path, tmp_path / "from-s3", copy_function=os.link)
    done = likewise("bundle", "s3://models/sentiment", "-o", "from-s3", "--json", cwd=tmp_path, env=env)
    assert json.loads(done.stdout)["digest"] == bundle.digest
    assert "the same bundle already exists" in done.stderr
    missing = likewise("bundle", "s3://models/nothing", "-o", "none", "--json", cwd=tmp_path, env=env, code=1)
    assert json.loads(missing.stdout)["error"]["code"] in ("MODEL_NOT_FOUND", "MODEL_INVALID")
