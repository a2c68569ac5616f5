"""What the tests of the target `sagemaker` share: an account of a file, and what they put there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.target_room import upper_bundle
from tests.process.sagemaker_account import REGION, AwsAccount, aws_account
from tests.process.sagemaker_room import carried_out

from likewise.core.spec import ModelSpec


@pytest.fixture(scope="module")
def quick() -> Iterator[AwsAccount]:
    """An account whose containers start at once."""
    images = {name: Path("/", name) for name in ("one:1", "two:1")}
    with pytest.MonkeyPatch.context() as patch, aws_account(images, patch.setenv, quick=True) as account:
        yield account


@pytest.fixture
def account(quick: AwsAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsAccount]:
    """The same; nothing may be left there by a test."""
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(tmp_path / "data"))
    quick.emulator.faults.clear()
    yield quick
    quick.emulator.faults.clear()
    for receipt in quick.target.found():
        carried_out(quick, "delete", receipt.name, None, current=receipt)
    assert quick.left() == []


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return upper_bundle(tmp_path_factory.mktemp("models") / "one", "1:")


@pytest.fixture
def bundle(bundles: Path) -> ModelSpec:
    digest = json.loads((bundles / "likewise.json").read_bytes())["digest"]
    return ModelSpec(digest, bundles, "models:/m/1", trust=True)


@pytest.fixture
def bucket(account: AwsAccount) -> Iterator[str]:
    s3 = account.client("s3")
    s3.create_bucket(Bucket="texts", CreateBucketConfiguration={"LocationConstraint": REGION})
    yield "texts"
    for each in s3.list_objects_v2(Bucket="texts").get("Contents", []):
        s3.delete_object(Bucket="texts", Key=each["Key"])
    s3.delete_bucket(Bucket="texts")
