"""A cluster that asks for Ray's token: with it everything works, without it the reader is told so at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.ray_cluster import RayCluster, ray_cluster
from tests.process.ray_room import delete, put, versioned

from likewise.core.errors import Unauthorized
from likewise.targets.ray import session
from likewise.targets.ray.target import RayTarget

pytestmark = pytest.mark.slow

TOKEN = "0123456789abcdef" * 4
BOUND_S = 20.0  # for an answer to have begun: Ray itself tries for half a minute and more


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN) as made:
        yield made


@pytest.fixture(params=["Ray's own port", "the client port"])
def target(
    request: pytest.FixtureRequest, cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RayTarget:
    """Reached by a user who has no token anywhere yet."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # ~/.ray/auth_token
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", cluster.env["LIKEWISE_CACHE_HOME"])
    return RayTarget("ray" if request.param == "Ray's own port" else f"ray-serve://{cluster.client}")


def test_with_the_token_all_verbs_work(target: RayTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    model = versioned(tmp_path, 1)
    assert [each for each in target.check(model, RayTarget.Options()) if each.fatal] == []
    receipt = put(target, "guarded", model)
    assert target.status(receipt).state == "ready"
    assert [each.name for each in target.found()] == ["guarded"]
    answer = target.predict(receipt, b'{"inputs": ["x"]}', "application/json")
    assert (answer.status, answer.body) == (200, b'{"predictions":[{"text":"X","version":1}]}')
    delete(target, "guarded")
    assert target.found() == []


@pytest.mark.parametrize("at_home", [True, False])
def test_a_token_file_is_found_as_ray_finds_it(
    target: RayTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_home: bool
) -> None:
    file = tmp_path / ".ray" / "auth_token" if at_home else tmp_path / "token"
    file.parent.mkdir(exist_ok=True)
    file.write_text(TOKEN)
    if not at_home:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    assert target.found() == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "there is none here"),
        ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE is 'disabled'"),
        ({"RAY_AUTH_MODE": "token"}, "asks for a token"),
        ({"RAY_AUTH_TOKEN": "f" * 64}, "does not know the token"),
    ],
)
def test_without_it_the_reader_is_told_so(
    target: RayTarget, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], said: str
) -> None:
    monkeypatch.setattr(session, "CONNECT_S", BOUND_S)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unauthorized, match=said) as refused:
        target.found()
    assert "RAY_AUTH_TOKEN" in refused.value.remedy


def test_a_deployment_without_it_begins_nothing(target: RayTarget, tmp_path: Path) -> None:
    with pytest.raises(Unauthorized):
        target.check(versioned(tmp_path, 1), RayTarget.Options())
