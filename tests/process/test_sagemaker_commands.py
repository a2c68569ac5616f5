"""The command line against the local SageMaker: batch transform, answers that come later, a stage of its own."""

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


def good(*words: str | Path) -> str:
    """What the command writes; it must not fail."""
    done = call(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def options(account: Account) -> list[str]:
    """Of an image that finds its bundle in S3."""
    pairs = {**account.options(EMPTY), "bundle_in": "s3"}
    return [word for name, value in pairs.items() for word in ("-C", f"{name}={value}")]


def test_a_batch_job_is_run_and_told_again(account: Account, bundle: Path, bucket: str) -> None:
    s3 = account.client("s3")
    s3.put_object(Bucket=bucket, Key="in/some/a.jsonl", Body=b'{"text": "a"}\n{"text": "b"}\n')
    where = [f"s3://{bucket}/in", "-o", f"s3://{bucket}/out", "--to", account.uri]
    words = ["transform", bundle, *where, "--trust", *options(account), "-C", "content_type=application/jsonlines"]
    done = json.loads(good(*words, "--json"))
    assert (done["status"], done["output"]) == ("Completed", f"s3://{bucket}/out")
    (answered,) = [key for key in account.objects() if key.startswith("out/")]
    assert answered.endswith("a.jsonl.out")
    lines = s3.get_object(Bucket=bucket, Key=answered)["Body"].read().decode().split()
    assert [json.loads(line) for line in lines] == ["1:A", "1:B"]
    assert json.loads(good(*words, "--json"))["id"] == done["id"]
    assert account.client("sagemaker").list_models()["Models"] == []
    account.drop_bucket(f"sagemaker-{REGION}-123456789012")  # a job leaves its bundle there for the next one


def test_what_a_job_can_be_told_is_listed_and_what_it_cannot_is_refused(account: Account, bundle: Path) -> None:
    listed = good("transform", "any", "in", "-o", "out", "--to", account.uri, "--options", "--json")
    assert {"split_type", "instance_type"} <= {each["name"] for each in json.loads(listed)["options"]}
    for arguments, error, code in (
        (["--to", "local"], "WRONG_USAGE", 2),
        (["--to", account.uri, "--trust", "-C", "split_tipe=Line"], "WRONG_USAGE", 2),
        (["--to", account.uri, *options(account)], "DEPLOY_FAILED", 1),  # nobody trusts its code
    ):
        done = call("transform", bundle, "s3://a/in", "-o", "s3://a/out", *arguments, "--json")
        assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (code, error), done.stdout


def test_a_request_is_answered_later(account: Account, bundle: Path, bucket: str) -> None:
    later = json.dumps({"OutputConfig": {"S3OutputPath": f"s3://{bucket}/later"}})
    given = [*options(account), "-C", f"async_inference_config={later}"]
    good("deploy", bundle, "--to", account.uri, "--name", "later", "--trust", *given)
    done = good("predict", "later", '{"inputs": ["a"]}', "--async", "--timeout", "60")
    assert json.loads(done) == {"predictions": ["1:A"]}
    good("delete", "later")


def test_a_command_runs_in_a_stage_of_its_own_and_its_exit_code_is_ours(tmp_path: Path) -> None:
    """Where no container can be run, that is said before the command is."""
    env = {**os.environ, "DOCKER_HOST": "unix:///nowhere", "PATH": str(tmp_path)}
    done = likewise("rehearse", "sagemaker:/eu-west-1", "--", "true", env=env, code=1)
    assert "TARGET_UNAVAILABLE" in done.stderr
    assert call("rehearse", "local", "--", "true").returncode == 2
