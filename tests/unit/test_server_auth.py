"""Tokens: which are accepted, and a token file that is changed, moved and deleted while the server runs."""

import base64
import logging
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from likewise.core.errors import Unauthorized, WrongUsage
from likewise.server.auth import CHALLENGE, OPEN_PATHS, Tokens, challenge


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "tokens", "# for the shop\nfirst\n\n  second  \r\n")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def bearer(token: str) -> Headers:
    return Headers({"Authorization": f"Bearer {token}"})


def basic(pair: str) -> Headers:
    return Headers({"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"})


def accepts(tokens: Tokens, headers: Headers) -> bool:
    try:
        tokens.check(headers)
    except Unauthorized:
        return False
    return True


@pytest.mark.parametrize(
    "headers",
    [
        bearer("first"),
        bearer("second"),
        Headers({"authorization": "bearer   first "}),
        basic("anybody:first"),
        basic(":second"),
        Headers({"authorization": "BASIC " + base64.b64encode(b"u:first").decode()}),
    ],
)
def test_each_token_is_accepted_as_bearer_and_as_a_password(file: Path, headers: Headers) -> None:
    Tokens(file).check(headers)


@pytest.mark.parametrize(
    "headers",
    [
        Headers({}),
        bearer(""),
        bearer("firs"),
        bearer("first1"),
        bearer("# for the shop"),
        bearer("FIRST"),
        basic("first"),
        basic("first:"),
        basic("first:other"),
        Headers({"authorization": "first"}),
        Headers({"authorization": "Digest first"}),
        Headers({"authorization": "Basic !!!"}),
        Headers({"authorization": "Basic YQ"}),
        Headers({"authorization": "Bearer " + "x" * 100_000}),
        Headers({"authorization": "Basic " + "YQ==" * 100_000}),
        Headers(raw=[(b"authorization", b"Bearer \xff\x00\xe9")]),
        Headers(raw=[(b"authorization", b"Basic \xff\xfe")]),
        Headers(raw=[(b"authorization", b"Bearer first"), (b"authorization", b"Bearer nothing")]),
    ],
)
def test_anything_else_is_unauthorized(file: Path, headers: Headers) -> None:
    assert not accepts(Tokens(file), headers)


@given(raw=st.binary(max_size=200), scheme=st.sampled_from([b"", b"Bearer ", b"Basic "]))
def test_no_header_breaks_the_check(tmp_path_factory: pytest.TempPathFactory, raw: bytes, scheme: bytes) -> None:
    tokens = Tokens(write(tmp_path_factory.mktemp("t") / "tokens", "a token of many characters"))
    assert not accepts(tokens, Headers(raw=[(b"authorization", scheme + raw)]))


def test_a_refusal_does_not_repeat_the_token(file: Path) -> None:
    with pytest.raises(Unauthorized) as caught:
        Tokens(file).check(bearer("s3cret"))
    assert "s3cret" not in caught.value.cause + caught.value.remedy


def test_a_non_ascii_token_is_compared_by_its_bytes(tmp_path: Path) -> None:
    tokens = Tokens(write(tmp_path / "tokens", "\ufeffgrün\n"))
    tokens.check(Headers(raw=[(b"authorization", "Bearer grün".encode())]))
    tokens.check(basic("u:grün"))


def test_a_changed_file_is_reloaded(file: Path) -> None:
    tokens = Tokens(file)
    write(file, "third\n")
    assert [accepts(tokens, bearer(token)) for token in ("first", "third")] == [False, True]


def test_a_recently_modified_file_is_reloaded_even_if_its_timestamps_are_unchanged(file: Path) -> None:
    """Two writes of the same size to the same inode within one tick of the file system's clock."""
    young = time.time_ns() + 60 * 10**9
    write(file, "third\n")
    os.utime(file, ns=(young, young))
    tokens = Tokens(file)
    write(file, "fifth\n")
    os.utime(file, ns=(young, young))
    assert [accepts(tokens, bearer(token)) for token in ("third", "fifth")] == [False, True]


def test_an_old_unchanged_file_is_not_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(file, (1_000_000_000, 1_000_000_000))
    tokens = Tokens(file)
    monkeypatch.setattr(Path, "open", None)
    tokens.check(bearer("first"))


def test_a_secret_replaced_through_a_symlink_is_reloaded(tmp_path: Path) -> None:
    """As Kubernetes updates a mounted secret: tokens -> ..data/tokens, ..data -> one folder per version."""
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        write(tmp_path / version / "tokens", f"{version}\n")
        os.utime(tmp_path / version / "tokens", (1_000_000_000, 1_000_000_000))
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    tokens = Tokens(tmp_path / "tokens")
    tokens.check(bearer("one"))
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert [accepts(tokens, bearer(token)) for token in ("one", "two")] == [False, True]


@pytest.mark.parametrize("text", [None, "", "# nothing\n\n"])
def test_a_lost_file_leaves_the_last_tokens_valid_and_logs_one_warning(
    file: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens(file)
    with caplog.at_level(logging.WARNING):
        file.unlink() if text is None else write(file, text)
        for _ in range(3):
            tokens.check(bearer("first"))
        assert len(caplog.records) == 1
        assert str(file) in caplog.text
        write(file, "new\n")
        assert [accepts(tokens, bearer(token)) for token in ("first", "new")] == [False, True]
        file.unlink()
        tokens.check(bearer("new"))
        assert len(caplog.records) == 2


@pytest.mark.parametrize("text", [None, "", "\n# only a comment\n"])
def test_a_file_without_tokens_is_rejected_at_startup(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "tokens"
    if text is not None:
        write(path, text)
    with pytest.raises(WrongUsage, match="tokens") as caught:
        Tokens(path)
    assert "one token per line" in caught.value.remedy


def test_a_folder_is_not_a_valid_token_file(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match="cannot be read"):
        Tokens(tmp_path)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_world_readable_file_is_reported_in_the_log(
    file: Path, mode: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    file.chmod(mode)
    with caplog.at_level(logging.WARNING):
        Tokens(file)
    assert ("chmod 600" in caplog.text) is warned


def test_health_routes_and_the_page_are_open_and_browsers_prompt_the_user() -> None:
    assert {"/ping", "/health", "/ready", "/v2/health/live", "/v2/health/ready", "/"} == OPEN_PATHS
    assert CHALLENGE.startswith("Basic ")
    assert "Bearer " in CHALLENGE
    assert challenge("Basic abc") == challenge("") == CHALLENGE
    assert challenge("bearer wrong") == 'Bearer realm="likewise"'
