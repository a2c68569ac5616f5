"""The command line against the local SageMaker: batch transform, answers that come later, a stage of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.target_room import upper_bundle
from tests.process.sagemaker_account import AwsAccount, aws_account

pytestmark = pytest.mark.slow

BUCKET = "of-the-commands"
LATER = json.dumps({"OutputConfig": {"S3OutputPath": f"s3://{BUCKET}/later"}})


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsAccount]:
    """Its containers are processes of ours, which find their bundle in S3."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIKEWISE_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        with aws_account({}, patch.setenv, every={}) as made:
            made.client("s3").create_bucket(
                Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
            )
            yield made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return upper_bundle(tmp_path_factory.mktemp("models") / "one", "1:")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "likewise.cli", *arguments], capture_output=True, text=True, timeout=300
    )


def good(*arguments: str) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def options(account: AwsAccount) -> list[str]:
    pairs = {**account.options("any:1"), "bundle_in": "s3"}
    return [word for name, value in pairs.items() for word in ("-C", f"{name}={value}")]


def test_a_batch_job_is_run_and_told_again(account: AwsAccount, bundle: Path) -> None:
    s3 = account.client("s3")
    s3.put_object(Bucket=BUCKET, Key="in/some/a.jsonl", Body=b'{"text": "a"}\n{"text": "b"}\n')
    where = [f"s3://{BUCKET}/in", "-o", f"s3://{BUCKET}/out", "--to", account.uri]
    command = ["transform", str(bundle), *where, "--trust", *options(account), "--json"]
    done = json.loads(good(*command, "-C", "content_type=application/jsonlines"))
    assert (done["status"], done["output"]) == ("Completed", f"s3://{BUCKET}/out")
    (answered,) = [key for key in account.objects() if key.startswith("out/")]
    assert answered.endswith("a.jsonl.out")
    lines = s3.get_object(Bucket=BUCKET, Key=answered)["Body"].read().decode().split()
    assert [json.loads(line) for line in lines] == ["1:A", "1:B"]
    assert json.loads(good(*command, "-C", "content_type=application/jsonlines"))["id"] == done["id"]
    assert account.client("sagemaker").list_models()["Models"] == []


def test_what_a_job_can_be_told_is_listed_and_what_it_cannot_is_refused(account: AwsAccount, bundle: Path) -> None:
    said = json.loads(good("transform", "any", "in", "-o", "out", "--to", account.uri, "--options", "--json"))
    assert {"split_type", "instance_type"} <= {each["name"] for each in said["options"]}
    for arguments, code in (
        (["--to", "local"], "WRONG_USAGE"),
        (["--to", account.uri, "--trust", "-C", "split_tipe=Line"], "WRONG_USAGE"),
        (["--to", account.uri, *options(account)], "DEPLOY_FAILED"),  # nobody trusts its code
    ):
        done = run("transform", str(bundle), "s3://a/in", "-o", "s3://a/out", *arguments, "--json")
        assert (done.returncode != 0, json.loads(done.stdout)["error"]["code"]) == (True, code), done.stdout


def test_a_request_is_answered_later(account: AwsAccount, bundle: Path) -> None:
    given = [*options(account), "-C", f"async_inference_config={LATER}"]
    good("deploy", str(bundle), "--to", account.uri, "--name", "later", "--trust", *given)
    try:
        assert json.loads(good("predict", "later", '{"inputs": ["a"]}', "--async", "--timeout", "60")) == {
            "predictions": ["1:A"]
        }
    finally:
        good("delete", "later")


def test_a_command_runs_in_a_stage_of_its_own_and_its_exit_code_is_ours(tmp_path: Path) -> None:
    """Where no container can be run, that is said before the command is."""
    env = {**os.environ, "DOCKER_HOST": "unix:///nowhere", "PATH": str(tmp_path)}
    command = [sys.executable, "-m", "likewise.cli", "rehearse", "sagemaker:/eu-west-1", "--", "true"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "TARGET_UNAVAILABLE" in done.stderr
    assert run("rehearse", "local", "--", "true").returncode == 2
