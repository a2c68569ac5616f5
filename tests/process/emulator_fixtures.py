"""What the tests of the local SageMaker share: one of a file, with an endpoint in service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.process.container_room import PATIENCE, upper_bundle
from tests.process.emulator_room import LIVE, Room, role_of

from likewise.bundles.open import Bundle
from likewise.targets.sagemaker.emulator import ProcessRunner, rehearsal


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    return {mark: upper_bundle(folder / mark, f"{mark}:") for mark in ("1", "2")}


@pytest.fixture(scope="module")
def _one_room(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    images = {
        "upper:1": {"LIKEWISE_BUNDLE": str(bundles["1"].path), "LIKEWISE_TRUST": "true"},
        "upper:2": {"LIKEWISE_BUNDLE": str(bundles["2"].path), "LIKEWISE_TRUST": "true"},
        "bare:1": {"LIKEWISE_TRUST": "true"},
    }
    with rehearsal(ProcessRunner(images), most_wait_s=PATIENCE, answer_s=PATIENCE) as emulator:
        made = Room(emulator, "", tmp_path_factory.mktemp("room"))
        made.role = role_of(made, "deployer")
        made.client("s3").create_bucket(Bucket="rows")
        made.model(LIVE)
        made.config(LIVE)
        assert made.endpoint(LIVE)["EndpointStatus"] == "InService"
        yield made


@pytest.fixture
def room(_one_room: Room) -> Iterator[Room]:
    """Left without faults by each test."""
    yield _one_room
    _one_room.emulator.faults.clear()
