"""The command line with the emulated SageMaker: batch transform, asynchronous requests, `likewise rehearse`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.support.aws.account import REGION, Account
from tests.support.aws.images import EMPTY
from tests.support.cli import call
from tests.support.processes import likewise

from likewise.testing.models import upper_bundle

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sagemaker")]
pytest_plugins = ("tests.support.aws.fixtures",)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return upper_bundle(tmp_path_factory.mktemp("models") / "one", "1:")


def succeed(*words: str | Path) -> str:
    """Run a command that must succeed, and return its output."""
    done = call(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def options(account: Account) -> list[str]:
    """Options of an image whose bundle is in S3."""
    pairs = {**account.options(EMPTY), "bundle_in": "s3"}
    return [word for name, value in pairs.items() for word in ("-C", f"{name}={value}")]


def test_a_repeated_batch_job_returns_the_completed_one(account: Account, bundle: Path, bucket: str) -> None:
    s3 = account.client("s3")
    s3.put_object(Bucket=bucket, Key="in/some/a.jsonl", Body=b'{"text": "a"}\n{"text": "b"}\n')
    locations = [f"s3://{bucket}/in", "-o", f"s3://{bucket}/out", "--to", account.uri]
    words = ["transform", bundle, *locations, "--trust", *options(account), "-C", "content_type=application/jsonlines"]
    done = json.loads(succeed(*words, "--json"))
    assert (done["status"], done["output"]) == ("Completed", f"s3://{bucket}/out")
    (output_key,) = [key for key in account.objects() if key.startswith("out/")]
    assert output_key.endswith("a.jsonl.out")
    lines = s3.get_object(Bucket=bucket, Key=output_key)["Body"].read().decode().split()
    assert [json.loads(line) for line in lines] == ["1:A", "1:B"]
    assert json.loads(succeed(*words, "--json"))["id"] == done["id"]
    assert account.client("sagemaker").list_models()["Models"] == []
    account.drop_bucket(f"sagemaker-{REGION}-123456789012")  # a job keeps its bundle there for the next one


def test_options_of_a_job_are_listed_and_invalid_arguments_are_rejected(account: Account, bundle: Path) -> None:
    listed = succeed("transform", "any", "in", "-o", "out", "--to", account.uri, "--options", "--json")
    assert {"split_type", "instance_type"} <= {each["name"] for each in json.loads(listed)["options"]}
    for arguments, error, code in (
        (["--to", "local"], "WRONG_USAGE", 2),
        (["--to", account.uri, "--trust", "-C", "split_tipe=Line"], "WRONG_USAGE", 2),
        (["--to", account.uri, *options(account)], "CODE_NOT_TRUSTED", 1),
    ):
        done = call("transform", bundle, "s3://a/in", "-o", "s3://a/out", *arguments, "--json")
        assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (code, error), done.stdout


def test_an_asynchronous_request_returns_its_prediction(account: Account, bundle: Path, bucket: str) -> None:
    later = json.dumps({"OutputConfig": {"S3OutputPath": f"s3://{bucket}/later"}})
    arguments = [*options(account), "-C", f"async_inference_config={later}"]
    succeed("deploy", bundle, "--to", account.uri, "--name", "later", "--trust", *arguments)
    done = succeed("predict", "later", '{"inputs": ["a"]}', "--async", "--timeout", "60")
    assert json.loads(done) == {"predictions": ["1:A"]}
    succeed("delete", "later")


def test_rehearse_fails_without_a_container_engine_or_an_emulator(tmp_path: Path) -> None:
    """Without a container engine, or for a target without an emulator, the command is not run."""
    env = {**os.environ, "DOCKER_HOST": "unix:///nowhere", "PATH": str(tmp_path)}
    done = likewise("rehearse", "sagemaker:/eu-west-1", "--", "true", env=env, code=1)
    assert "TARGET_UNAVAILABLE" in done.stderr
    assert call("rehearse", "local", "--", "true").returncode == 2
