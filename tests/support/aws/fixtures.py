"""Fixtures of the emulated AWS account: one emulator for all tests of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.aws.account import REGION, Account, logged_in
from tests.support.aws.api import BUCKET, LIVE, Api
from tests.support.aws.deployments import run_plan
from tests.support.aws.faults import FaultyEmulator
from tests.support.aws.images import Images
from tests.support.gated import gated_bundle

from likewise.bundles.open import Bundle
from likewise.targets.sagemaker.emulator import rehearsal

STARTUP_S = 60.0  # limit for the startup of containers


@pytest.fixture(scope="session")
def upper_bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Two bundles that return the text in capitals, prefixed with `1:` or `2:`; see `gated_bundle`."""
    folder = tmp_path_factory.mktemp("bundles")
    return {mark: gated_bundle(folder / mark, f"{mark}:") for mark in ("1", "2")}


@pytest.fixture(scope="session")
def emulator(upper_bundles: dict[str, Bundle]) -> Iterator[FaultyEmulator]:
    """An emulator with the images `upper:1` and `upper:2` of these bundles, and those of `tests.support.aws.images`."""
    trusted = {"LIKEWISE_TRUST": "true"}
    images = {f"upper:{mark}": {"LIKEWISE_BUNDLE": str(each.path), **trusted} for mark, each in upper_bundles.items()}
    running = FaultyEmulator(Images(images), max_startup_s=STARTUP_S)
    with rehearsal(running):
        yield running


@pytest.fixture(scope="session")
def _api(emulator: FaultyEmulator) -> Api:
    api = Api(Account(emulator, "us-east-1"))
    api.account.make_bucket(BUCKET)
    api.model(LIVE)
    api.config(LIVE)
    assert api.endpoint(LIVE)["EndpointStatus"] == "InService"
    return api


@pytest.fixture
def api(_api: Api) -> Iterator[Api]:
    """The region us-east-1, with a bucket, and with the endpoint LIVE of the image `upper:1` in service."""
    _api.emulator.faults.clear()
    yield _api
    _api.emulator.faults.clear()


@pytest.fixture(scope="session")
def shared_account(emulator: FaultyEmulator) -> Account:
    """The region eu-west-1, which must be empty after every test."""
    return Account(emulator, REGION)


@pytest.fixture
def account(shared_account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """`shared_account`, with AWS credentials and a temporary data folder; remaining deployments are deleted."""
    monkeypatch.setenv("LIKEWISE_DATA_HOME", str(tmp_path / "data"))
    shared_account.emulator.faults.clear()
    with logged_in():
        yield shared_account
        shared_account.emulator.faults.clear()
        for receipt in shared_account.target.found():
            run_plan(shared_account, "delete", receipt.name, None, current=receipt)
    assert shared_account.resources() == []


@pytest.fixture
def bucket(account: Account) -> Iterator[str]:
    """A bucket in the region of `account`."""
    yield account.make_bucket("texts")
    account.drop_bucket("texts")
