"""A cluster that requires Ray's token: with it everything works, without it the error is reported at once."""

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
BOUND_S = 20.0  # for a connection: Ray itself would retry for more than half a minute


@pytest.fixture(scope="module")
def guarded() -> Iterator[RayCluster]:
    """A separate cluster that requires a token, without Serve."""
    with started_cluster(serve=False, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN) as cluster:
        yield cluster


@pytest.fixture(params=["Ray's own port", "the client port"])
def target(
    request: pytest.FixtureRequest, guarded: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RayTarget:
    """The target for a user without any token."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # ~/.ray/auth_token
    monkeypatch.setenv("RAY_ADDRESS", guarded.address)
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", guarded.env["LIKEWISE_CACHE_HOME"])
    return RayTarget("ray" if request.param == "Ray's own port" else f"ray-serve://{guarded.client}")


@pytest.mark.parametrize("in_home", [True, pytest.param(False, marks=pytest.mark.long)])
def test_token_file_is_found_as_by_ray(
    target: RayTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_home: bool
) -> None:
    file = tmp_path / ".ray" / "auth_token" if in_home else tmp_path / "token"
    file.parent.mkdir(exist_ok=True)
    file.write_text(TOKEN)
    if not in_home:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    assert target.found() == []


@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ({}, "no token is configured"),
        ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE is 'disabled'"),
        ({"RAY_AUTH_MODE": "token"}, "requires a token"),
        ({"RAY_AUTH_TOKEN": "f" * 64}, "rejects the configured token"),
    ],
)
def test_missing_token_is_reported_before_any_change(
    target: RayTarget,
    ray_models: dict[int, ModelSpec],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    cause: str,
) -> None:
    monkeypatch.setattr(session, "CONNECT_S", BOUND_S)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unauthorized, match=cause) as rejected:
        target.check(ray_models[1], RayTarget.Options())
    assert "RAY_AUTH_TOKEN" in rejected.value.remedy


@pytest.mark.parametrize(
    "target", ["Ray's own port", pytest.param("the client port", marks=pytest.mark.long)], indirect=True
)
def test_all_commands_work_with_the_token_and_the_first_one_starts_serve(
    target: RayTarget, ray_models: dict[int, ModelSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert [each for each in target.check(ray_models[1], RayTarget.Options()) if each.fatal] == []
    with deployed(target, "guarded", ray_models[1]) as receipt:
        assert target.status(receipt).state == "ready"
        assert names(target) == ["guarded"]
        response = target.predict(receipt, b'{"inputs": ["x"]}', "application/json")
        assert (response.status, response.body) == (200, b'{"predictions":["1:X"]}')
    assert names(target) == []
