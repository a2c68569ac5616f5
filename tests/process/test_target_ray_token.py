"""A cluster that asks for Ray's token: with it everything works, without it the user is told so at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.ray.cluster import RayCluster, started_cluster
from tests.support.ray.deployments import deployed, names

from likewise.core.errors import Unauthorized
from likewise.core.spec import ModelSpec
from likewise.targets.ray import session
from likewise.targets.ray.target import RayTarget

pytest_plugins = ("tests.support.ray.fixtures",)
pytestmark = pytest.mark.xdist_group("ray")

TOKEN = "0123456789abcdef" * 4
BOUND_S = 20.0  # for an answer to have begun: Ray itself tries for half a minute and more


@pytest.fixture(scope="module")
def guarded() -> Iterator[RayCluster]:
    """A cluster of its own; Serve does not run on it yet."""
    with started_cluster(serve=False, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN) as made:
        yield made


@pytest.fixture(params=["Ray's own port", "the client port"])
def target(
    request: pytest.FixtureRequest, guarded: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RayTarget:
    """Reached by a user who has no token anywhere yet."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # ~/.ray/auth_token
    monkeypatch.setenv("RAY_ADDRESS", guarded.address)
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", guarded.env["LIKEWISE_CACHE_HOME"])
    return RayTarget("ray" if request.param == "Ray's own port" else f"ray-serve://{guarded.client}")


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
    ("given", "cause"),
    [
        ({}, "there is none here"),
        ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE is 'disabled'"),
        ({"RAY_AUTH_MODE": "token"}, "asks for a token"),
        ({"RAY_AUTH_TOKEN": "f" * 64}, "does not know the token"),
    ],
)
def test_without_it_the_user_is_told_so_before_anything_begins(
    target: RayTarget,
    ray_models: dict[int, ModelSpec],
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    cause: str,
) -> None:
    monkeypatch.setattr(session, "CONNECT_S", BOUND_S)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unauthorized, match=cause) as refused:
        target.check(ray_models[1], RayTarget.Options())
    assert "RAY_AUTH_TOKEN" in refused.value.remedy


@pytest.mark.long
def test_with_the_token_all_verbs_work(
    target: RayTarget, ray_models: dict[int, ModelSpec], guarded: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    if guarded.observer is None:
        guarded.start_serve()
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert [each for each in target.check(ray_models[1], RayTarget.Options()) if each.fatal] == []
    with deployed(target, "guarded", ray_models[1]) as receipt:
        assert target.status(receipt).state == "ready"
        assert names(target) == ["guarded"]
        answer = target.predict(receipt, b'{"inputs": ["x"]}', "application/json")
        assert (answer.status, answer.body) == (200, b'{"predictions":["1:X"]}')
    assert names(target) == []
