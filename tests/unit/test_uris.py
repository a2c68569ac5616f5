"""Secrets are removed from URIs and from texts that contain them; everything else stays as it is."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.core.errors import LikewiseError, WrongUsage
from likewise.core.uris import redacted, without_secrets, without_user

SIGNED = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=SECRET%2Faws4_request&X-Amz-Signature=SECRET"


@pytest.mark.parametrize(
    ("uri", "clean"),
    [
        ("http://user:SECRET@host/x", "http://host/x"),
        ("HTTPS://user:SECRET@host:8443/x", "HTTPS://host:8443/x"),
        ("http://SECRET@host", "http://host"),
        ("http://user:SE@CRET@host/x", "http://host/x"),
        ("http://user:SE%40CRET%2F@host/a%20b", "http://host/a%20b"),
        ("http://user:SECRET@[::1]:5000/x", "http://[::1]:5000/x"),
        (f"https://bucket.s3.amazonaws.com/model?{SIGNED}", "https://bucket.s3.amazonaws.com/model"),
        ("https://account.blob.core.windows.net/c/m?sv=2024&sig=SECRET", "https://account.blob.core.windows.net/c/m"),
        ("https://host/model?SECRET", "https://host/model"),
        ("https://host/model#access_token=SECRET", "https://host/model"),
        ("s3://KEY:SECRET@bucket/a/b", "s3://bucket/a/b"),
        ("postgresql+psycopg2://user:SECRET@db:5432/mlflow?password=SECRET", "postgresql+psycopg2://db:5432/mlflow"),
        ("postgresql://user:12/SECRET@db/mlflow", "postgresql://…@db/mlflow"),
        ("http://user:SECRET/?#SECRET@host/x", "http://…@host/x"),
        ("http://evil.com:SECRET\\@host/x", "http://…@host/x"),
        ("mlflow-artifacts://user:SECRET@host:5000/m", "mlflow-artifacts://host:5000/m"),
        ("wasbs://container@account.blob.core.windows.net/x", "wasbs://container@account.blob.core.windows.net/x"),
        ("abfss://container:SECRET@account.dfs.core.windows.net/x", "abfss://container@account.dfs.core.windows.net/x"),
        ("r2://bucket@account.r2.cloudflarestorage.com/x", "r2://bucket@account.r2.cloudflarestorage.com/x"),
        ("models://profile:prefix@databricks/name/1", "models://profile:prefix@databricks/name/1"),
        ("http://user:SECRET@databricks/x", "http://databricks/x"),
    ],
)
def test_user_information_query_and_fragment_are_removed(uri: str, clean: str) -> None:
    assert without_secrets(uri) == without_secrets(clean) == clean
    for text in (f"{uri}", f"cannot open '{uri}'.", f"({uri}: failed)", f'{{"uri":"{uri}","n":1}}'):
        assert redacted(text) == text.replace(uri, clean)


@pytest.mark.parametrize(
    "uri",
    [
        *("models:/name@champion", "models:/name/1?x=1#y", "runs:/0123/model", "mlflow-artifacts:/1/a@b"),
        *("sqlite:////home/me/a@b.db", "file:///a/b#c@d", "/a/b?c=d@e#f", "a@b", "", "s3:/x:y@z", "://x@y"),
        *("http://host:8080/models/name@champion", "http://[::1]:80/a:b@c", "s3://bucket/a@b.csv"),
    ],
)
def test_other_uris_and_paths_are_unchanged(uri: str) -> None:
    assert without_secrets(uri) == without_user(uri) == uri


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain text, a@b, 50 %?",
        "s3://bucket/part-?.csv matches no data file",
        "/data/part-?/year=2024.csv matches no data file",
        "use container:/docker, ray-serve://HOST:10001 or NAME@TARGET",
        "sagemaker:/eu-west-1?endpoint_url=http://127.0.0.1:5000",
        "http://host:80/a@b, (http://host) and 'http://host/c'",
    ],
)
def test_texts_without_secrets_are_unchanged(text: str) -> None:
    assert redacted(text) == text


def test_all_uris_in_a_text_are_cleaned() -> None:
    text = (
        "from http://u:SECRET@a,http://u:SECRET@b/x?y=SECRET (or s3://K:SECRET@c/d?t=SECRET), "
        "https://a/x?next=http://u:SECRET@b/y&t=SECRET "
        "git+https://SECRET@host/r 'jdbc:postgresql://h/d?user=u&password=SECRET'"
    )
    clean = "from http://a,http://b/x (or s3://c/d), https://a/x git+https://host/r 'jdbc:postgresql://h/d'"
    assert redacted(text) == clean


def test_paths_with_a_query_in_messages_of_http_libraries_are_cleaned() -> None:
    message = "HTTPSConnectionPool(host='h', port=443): Max retries exceeded with url: /m?sig=SECRET (Caused by …)"
    assert redacted(message) == message.replace("?sig=SECRET", "")


def test_errors_never_contain_secrets() -> None:
    error = WrongUsage("http://u:SECRET@h/x?sig=SECRET does not exist", remedy="open http://u:SECRET@h")
    assert error.as_dict() == {"code": "WRONG_USAGE", "cause": "http://h/x does not exist", "remedy": "open http://h"}
    assert str(error) == error.cause == LikewiseError.from_dict(error.as_dict()).cause


@pytest.mark.parametrize(
    "uri", ["http://evil.com\\@host/x", "http://evil.com:80\\@host/x", "http://a@b@host/x", "http://…@host/x"]
)
def test_user_information_that_programs_read_differently_is_left_where_the_host_counts(uri: str) -> None:
    assert without_user(uri) == uri


def test_only_user_information_is_removed_where_the_host_counts() -> None:
    assert without_user("http://user:SECRET@host/x?version=1#y") == "http://host/x?version=1#y"
    assert without_user("wasbs://container:SECRET@account/x") == "wasbs://container@account/x"


def test_hostile_texts_take_linear_time() -> None:
    start = time.process_time()
    for part in ("a://", "a://b:c", "a://b@", "/?", "?a", "(/", "a://?", "a:// ", "a", "http://a?"):
        redacted("://?" + part * 100_000)
    assert time.process_time() - start < 20  # quadratic time would take hours


# --- any URI ---------------------------------------------------------------------------------------------------------

NAMES = st.text("abcxyz019-.", min_size=1, max_size=12)
SECRETS = st.text("ABCDEFGH!$&*+=~_%40", min_size=6, max_size=20).map("SECRET".__add__)


@st.composite
def secret_uris(draw: st.DrawFn) -> tuple[str, str]:
    """A URI with a secret, and the same URI without it."""
    scheme = draw(st.sampled_from(["http", "https", "s3", "gs", "hdfs", "mlflow-artifacts", "postgresql+psycopg2"]))
    host = draw(st.one_of(NAMES.map("h".__add__), st.just("[::1]"), st.just("127.0.0.1")))
    port = draw(st.sampled_from(["", ":80", ":10001"]))
    path = draw(st.lists(NAMES, max_size=3).map(lambda parts: "".join(f"/{part}" for part in parts)))
    user = draw(st.sampled_from(["{}@", "user:{}@", "{}:x@", ""])).format(draw(SECRETS))
    query = draw(st.sampled_from(["", "?sig={}", "?a=1&token={}", "#id_token={}"])).format(draw(SECRETS))
    return f"{scheme}://{user}{host}{port}{path}{query}", f"{scheme}://{host}{port}{path}"


@given(secret_uris())
def test_any_uri_loses_its_secret_and_nothing_else(case: tuple[str, str]) -> None:
    uri, clean = case
    assert without_secrets(uri) == clean
    assert without_secrets(clean) == redacted(clean) == clean


@given(st.lists(secret_uris(), min_size=1, max_size=4), st.sampled_from([" ", ", ", "\n", "' '", " and "]))
def test_any_text_loses_all_secrets_and_nothing_else(cases: list[tuple[str, str]], between: str) -> None:
    cleaned = redacted(between.join(uri for uri, _ in cases))
    assert "SECRET" not in cleaned
    assert cleaned.replace(",", "") == between.join(clean for _, clean in cases).replace(",", "")


@given(st.text(st.sampled_from("aA1:/@?#&=%.,'\"<>\\[] …é"), max_size=40))
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)
    assert without_secrets(without_secrets(text)) == without_secrets(text)
