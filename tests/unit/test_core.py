"""Windows, isolation, keys, errors, digests, signatures, trust."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.wheels import install

from likewise.builder.bundle import trusts
from likewise.bundles import trust
from likewise.bundles.format import Manifest, ModelSource
from likewise.bundles.open import Bundle, write_manifest
from likewise.bundles.trust import Trust
from likewise.cli.app import raise_interrupt
from likewise.core.digests import canonical_json, sha256_bytes, sha256_file
from likewise.core.errors import CodeNotTrusted, MissingExtra, RowRefused, WrongUsage
from likewise.core.extras import install_command, need
from likewise.core.isolation import isolate
from likewise.core.items import Item, Request, Row, Table
from likewise.core.keys import item_key
from likewise.core.results import Failed, Ok, Result
from likewise.core.signature import Signature
from likewise.core.spec import ModelSpec
from likewise.core.windows import windows
from likewise.testing.models import upper_bundle

EXITS = """
import os
from likewise.core.isolation import isolate, refuse_exit
refuse_exit()

def forks(work):
    child = os.fork()
    if not child:
        os._exit(7)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]

print(isolate(forks, ["row"]), isolate(lambda work: os._exit(0), ["row"])[0].error.cause, flush=True)
os._exit(5)
"""


@pytest.mark.parametrize(
    ("item", "key"),
    [
        (Row(("text", "n"), ("a \U0001f600 film", 2**70), {"p": 1.5}), "b9cf3864e72502d8c480399ada8215bc"),
        # a date, a character that is unprintable in Python 3.11 but not in 3.12, and a lone surrogate
        (
            Row(("t", "when"), ("\U00010efd \ud800", datetime(2026, 1, 1, tzinfo=UTC))),
            "6e8aa8c7d1f7856e72ea8faf94f9a9b1",
        ),
        (Request(Table(None, [(b"x",), (None,)])), "f681b23d07b2b2ea6a4d90946277aaf1"),
    ],
)
def test_key_is_stable_across_processes_and_python_versions(item: Item, key: str) -> None:
    assert item_key(item).hex() == key  # existing journals on disk contain it


@given(st.lists(st.integers(1, 600), max_size=80), st.integers(1, 4096))
def test_windows_contain_every_item_once_within_the_budget(costs: list[int], budget: int) -> None:
    groups = windows(costs, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(costs)))
    for group in groups:
        longest = max(costs[i] for i in group)
        assert len(group) == 1 or longest * len(group) <= budget
    firsts = [max(costs[i] for i in group) for group in groups]
    assert firsts == sorted(firsts, reverse=True)


def test_windows_reject_a_budget_of_zero() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        windows([1], 0)


@given(st.lists(st.booleans(), max_size=64))
def test_isolation_fails_exactly_the_failing_items_with_at_most_two_calls_per_item(failing: list[bool]) -> None:
    calls = 0

    def run(work: Sequence[int]) -> list[Result]:
        nonlocal calls
        calls += 1
        if any(failing[i] for i in work):
            raise ValueError("failing item")
        return [Ok(i) for i in work]

    results = isolate(run, range(len(failing)))
    assert [isinstance(r, Failed) for r in results] == failing
    assert all(isinstance(r, Failed) or r.value == i for i, r in enumerate(results))
    assert calls <= max(0, 2 * len(failing))


def test_isolation_keeps_likewise_errors_and_wraps_others() -> None:
    def raise_likewise_error(work: Sequence[int]) -> list[Result]:
        raise RowRefused("no", remedy="yes")

    def raise_key_error(work: Sequence[int]) -> list[Result]:
        raise KeyError("text")

    (first,) = isolate(raise_likewise_error, [1])
    (second,) = isolate(raise_key_error, [1])
    assert isinstance(first, Failed)
    assert first.error.cause == "no"
    assert isinstance(second, Failed)
    assert "KeyError" in second.error.cause


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("not even a message")


class Panic(BaseException):
    """As pyo3's PanicException, not an Exception."""


@pytest.mark.parametrize(
    "raised", [Panic, SystemExit, KeyboardInterrupt, MemoryError, RecursionError, GeneratorExit, Unspeakable]
)
def test_whatever_an_item_raises_is_its_own_failure(raised: type[BaseException]) -> None:
    def run(work: Sequence[int]) -> list[Result]:
        if 3 in work:
            raise raised
        return [Ok(each) for each in work]

    results = isolate(run, range(5))
    assert [each for each in results if isinstance(each, Ok)] == [Ok(0), Ok(1), Ok(2), Ok(4)]
    assert isinstance(results[3], Failed)
    assert raised.__name__ in results[3].error.cause


@pytest.mark.parametrize("handler", [signal.default_int_handler, raise_interrupt])
def test_signal_to_the_process_is_not_an_items_failure(handler: Callable[[int, FrameType | None], None]) -> None:
    def run(work: Sequence[int]) -> list[Result]:
        signal.raise_signal(signal.SIGINT)
        return [Ok(each) for each in work]

    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            isolate(run, range(5))
    finally:
        for number, before in kept.items():
            signal.signal(number, before)


def test_wrong_number_of_results_fails_all_items() -> None:
    results = isolate(lambda work: [], range(2))
    assert all(isinstance(each, Failed) and "0 results for 2 items" in each.error.cause for each in results)


def test_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(RowRefused("cause", remedy="remedy")))  # noqa: S301
    assert error.as_dict() == {"code": "ROW_REFUSED", "cause": "cause", "remedy": "remedy"}


@given(st.text(), st.text())
def test_error_with_any_text_can_be_serialized(cause: str, remedy: str) -> None:
    error = RowRefused(cause + "\ud800", remedy=remedy + "\udcff")
    document = json.loads(orjson.dumps(error.as_dict()))
    assert document == error.as_dict()
    assert document["cause"].endswith("\\ud800")
    assert document["remedy"].endswith("\\udcff")
    assert str(error) == error.cause


@pytest.mark.parametrize("options", [["--json"], []])
def test_non_unicode_path_is_reported(tmp_path: Path, options: list[str]) -> None:
    argv = [os.fsencode(sys.executable), b"-m", b"likewise.cli", b"inspect", os.fsencode(tmp_path) + b"/\xff"]
    done = subprocess.run([*argv, *map(os.fsencode, options)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    output = json.loads(done.stdout)["error"]["cause"] if options else done.stderr
    assert "/\\udcff" in output


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_canonical_json_does_not_depend_on_key_order(value: dict[str, int | str]) -> None:
    try:
        data = canonical_json(value)
    except UnicodeEncodeError:
        return
    assert data == canonical_json(dict(reversed(value.items())))
    assert json.loads(data) == value


def test_digest_of_a_file_is_the_digest_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "f") == sha256_bytes(b"abc") == expected


def test_missing_library_is_reported_with_its_extra() -> None:
    with pytest.raises(MissingExtra) as caught:
        need("no_such_library.inside", extra="spark")
    assert caught.value.remedy == install_command("spark")
    assert need("json", extra="spark") is json


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'likewise[a,b]'"),
        ({"url": "file:///no/such/folder", "dir_info": {}}, "pip install 'likewise[a,b]'"),
        (
            {"url": "https://me:secret@example.com/likewise.git", "vcs_info": {"vcs": "git", "commit_id": "0a1b"}},
            "pip install 'likewise[a,b] @ git+https://example.com/likewise.git@0a1b'",
        ),
        ({"url": "FOLDER", "dir_info": {"editable": True}}, "pip install -e 'PATH[a,b]'"),
        ({"url": "FOLDER", "dir_info": {}}, "pip install 'PATH[a,b]'"),
        ({"url": "FOLDER/x.whl", "archive_info": {}}, "pip install 'likewise[a,b] @ FOLDER/x.whl'"),
    ],
)
def test_remedy_installs_from_where_likewise_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: dict[str, object] | None, command: str
) -> None:
    folder = tmp_path / "check out"
    folder.mkdir()
    (folder / "x.whl").touch()
    text = json.dumps(origin).replace("FOLDER", folder.as_uri())
    files = {"direct_url": text} if origin else {}
    install(monkeypatch, tmp_path / "site", "likewise", **files)
    assert install_command("a,b") == command.replace("FOLDER", folder.as_uri()).replace("PATH", str(folder))


def test_signature_is_parsed_from_mlflows_format() -> None:
    raw = {
        "inputs": '[{"type": "string", "name": "text"}, {"type": "long", "name": "n", "required": false}]',
        "outputs": '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}}]',
        "params": '[{"name": "top", "type": "long", "default": 3, "shape": null}]',
    }
    signature = Signature.parse(raw)
    assert signature.columns == ("text", "n")
    assert [f.required for f in signature.inputs or ()] == [True, False]
    assert not signature.is_tensor
    assert signature.params is not None
    assert signature.params[0].raw["default"] == 3
    assert Signature.parse({"inputs": raw["outputs"]}).is_tensor
    assert Signature.parse(None).columns is None
    with pytest.raises(ValueError, match="field"):
        Signature.parse({"inputs": "[1]"})


def test_table_splits_to_rows_with_columns() -> None:
    rows = list(Table(("a", "b"), [(1, 2), (3, 4)]).split({"p": 1}))
    assert [r.get("b") for r in rows] == [2, 4]
    assert rows[0].params == {"p": 1}
    with pytest.raises(KeyError):
        rows[0].get("c")


STORE = "http://store:5000"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIKEWISE_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", STORE)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    return tmp_path


def test_model_spec_round_trips() -> None:
    stored = {
        "digest": "sha256:ab",
        "folder": "/bundle",
        "source": "models:/m/1",
        "engine": "torch",
        "precision": "fp32",
        "trust": True,
        "build": "sha256:cd",
        "allow_versions": False,
        "python": "",
    }
    spec = ModelSpec.from_dict(stored)
    assert spec == ModelSpec("sha256:ab", Path("/bundle"), "models:/m/1", "torch", "fp32", True, "sha256:cd")
    assert spec.as_dict() == stored
    assert spec.portable() == {
        name: value for name, value in stored.items() if name not in ("folder", "source", "python")
    }
    assert ModelSpec.from_dict(spec.portable()) == replace(spec, folder=Path(), source="")
    before = ModelSpec.from_dict({name: value for name, value in stored.items() if name != "build"})
    assert (before.build, before.key, spec.key) == ("", "sha256:ab", "sha256:cd")


def test_digests_of_an_earlier_version_are_migrated_with_a_message(
    config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(config / "cache"))
    built = write_manifest(upper_bundle(config / "b", "x"), Manifest({}))
    cached = config / "cache" / "bundles" / built.digest.replace(":", "-")
    shutil.copytree(built.path, cached)
    unknown = "sha256:" + "0" * 64
    entries = [{"prefix": each, "store": None} for each in (built.digest, unknown, "s3://bucket/m")]
    (config / "trust.json").write_text(json.dumps(entries))
    assert {each.prefix for each in trust.remembered()} == {built.build, unknown, "s3://bucket/m"}
    assert f"{built.digest} is now the build digest {built.build}" in caplog.text
    assert f"{unknown} is no longer trusted" in caplog.text
    caplog.clear()
    assert Trust().allows_bundle(built)
    assert not Trust(entries=(built.digest,)).allows_bundle(built)
    assert "only build digests are trusted" in caplog.text
    assert len(trust.remembered()) == 3


def test_list_that_others_may_change_is_not_used(config: Path) -> None:
    trust.remember("models:/team/")
    trust.trust_file().chmod(0o666)
    with pytest.raises(WrongUsage, match="other users may change"):
        Trust()


def test_trust_is_stored_for_prefixes_and_digests(config: Path) -> None:
    digest = "sha256:" + "a" * 64
    trust.remember("models:/team/")
    trust.remember("models:/exact")
    team = (trust.TrustEntry("models:/exact", STORE), trust.TrustEntry("models:/team/", STORE))
    assert trust.remember(digest) == (*team, trust.TrustEntry(digest))
    entries = trust.Trust()
    assert entries.allows(uri="models:/team/model/3")
    assert entries.allows(uri="models:/exact/1")
    assert entries.allows(uri="models:/exact@best")
    assert entries.allows(digest=digest)
    assert not entries.allows(uri="models:/exactly/1")
    assert not entries.allows(uri="models:/other/1", digest="sha256:" + "b" * 64)
    assert trust.forget(digest) == team


def test_trust_in_a_model_name_only_applies_to_the_store_it_was_added_for(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for prefix in ("models:/m", "runs:/abc", "sha256:" + "a" * 64, "s3://bucket/m"):
        trust.remember(prefix)
    names = ({"uri": "models:/m/1"}, {"uri": "runs:/abc/model"})
    named = ({"digest": "sha256:" + "a" * 64}, {"uri": "s3://bucket/m/1"})
    for store in ("http://evil:5000", "sqlite:///mlflow.db", ""):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
        assert not any(trust.Trust().allows(**name) for name in names)
        assert all(trust.Trust().allows(**name) for name in named)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", STORE + "/")
    assert all(trust.Trust().allows(**name) for name in (*names, *named))
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://evil:5000")
    assert not any(trust.Trust().allows(**name) for name in names)


def test_current_store_has_a_canonical_form_without_password(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    canonical = {
        "": f"sqlite:///{tmp_path}/mlflow.db",
        "sqlite:///mlflow.db": f"sqlite:///{tmp_path}/mlflow.db",
        "./runs": f"{tmp_path}/runs",
        f"file://{tmp_path}/runs": f"{tmp_path}/runs",
        "postgresql://me:secret@host/db": "postgresql://host/db",
        "postgresql+psycopg2://host/db?password=secret": "postgresql+psycopg2://host/db",
        "http://me:secret@host:5000/": "http://host:5000",
        "databricks": "databricks",
    }
    for uri, expected in canonical.items():
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert trust.current_store() == expected
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").touch()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert trust.current_store() == f"{tmp_path}/mlruns"


def test_store_set_with_mlflows_python_api_is_used(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    trust.remember("models:/m")
    try:
        mlflow.set_tracking_uri("http://evil:5000")
        assert not trust.Trust().allows(uri="models:/m/1")
    finally:
        mlflow.set_tracking_uri(None)


@pytest.mark.parametrize(
    ("prefix", "uri"),
    [
        ("/safe/", "/safe/../evil/m"),
        ("/safe", "/safe/../evil/m"),
        ("/safe", "/safe@evil"),
        ("/safe", "file:///safe/../evil"),
        ("runs:/abc", "runs:/abc/../def/model"),
        ("runs:/abc", "runs:/abc/%2e%2e/def/model"),
        ("s3://bucket/safe", "s3://bucket/safe/../evil"),
        ("models:/", "models://profile@databricks/evil/1"),
    ],
)
def test_path_that_leaves_a_trusted_prefix_is_not_trusted(prefix: str, uri: str) -> None:
    assert not trust.Trust(entries=(prefix,)).allows(uri=uri)


def test_trusted_folder_is_recognized_in_every_notation(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "safe" / "m").mkdir(parents=True)
    (tmp_path / "evil").mkdir()
    (tmp_path / "safe" / "way-out").symlink_to(tmp_path / "evil")
    monkeypatch.chdir(tmp_path)
    assert trust.remember("./safe") == (trust.TrustEntry(str(tmp_path / "safe")),)
    entries = trust.Trust()
    for uri in ("safe/m", str(tmp_path / "safe"), (tmp_path / "safe" / "m").as_uri(), "evil/../safe/m"):
        assert entries.allows(uri=uri)
    assert not entries.allows(uri="safe/way-out")
    assert trust.forget("safe") == ()


def test_trusted_host_is_trusted_with_any_user_and_no_user_is_stored(config: Path) -> None:
    stored = (trust.TrustEntry("http://host/x"), trust.TrustEntry("wasbs://container@account/x"))
    trust.remember("wasbs://container@account/x")
    assert trust.remember("http://me:secret@host/x") == stored
    trust.trust_file().write_text(json.dumps([{"prefix": "http://me:secret@host/x", "store": None}]))
    assert trust.remember("wasbs://container@account/x") == stored  # an entry that an earlier version stored
    assert "secret" not in trust.trust_file().read_text()
    entries = trust.Trust()
    for uri in ("http://host/x", "http://you:other@host/x/y", "wasbs://container@account/x/y"):
        assert entries.allows(uri=uri)
    assert trust.forget("http://you@host/x") == stored[1:]


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:secret@evil/x",
        "http://host@evil/x",
        "http://evil\\@host/x",
        "http://evil:80\\@host/x",
        "http://evil:secret\\@host/x",
        "http://me:sec/ret@host/x",
        "http://host/x?model=evil",
        "http://host/x/1?model=evil",
        "http://host/x/1#evil",
        "http://host/x/.\t./evil",
        "http://host/x/.%0a./evil",
        "http://me@host/x#evil",
        "wasbs://other@account/x",
    ],
)
def test_other_host_container_or_query_is_not_trusted(uri: str, tmp_path: Path) -> None:
    """The characters before the last @ may be read as a host; a query may select any model."""
    entries = trust.Trust(entries=("http://host/x", "wasbs://container@account/x"))
    assert not entries.allows(uri=uri)
    manifest = Manifest({}, source=ModelSource(uri, uri).clean)
    assert not trusts(Bundle(tmp_path, manifest), uri, entries)


def test_uri_with_a_query_cannot_be_trusted_permanently(config: Path) -> None:
    with pytest.raises(WrongUsage, match="query"):
        trust.remember("http://me:secret@host/x?sig=secret")
    with pytest.raises(CodeNotTrusted) as refused:
        trust.Trust().require(uri="http://host/x?sig=secret")
    assert refused.value.remedy == "if you trust its author, add --trust"


def test_missing_trust_is_reported_with_a_remedy(config: Path) -> None:
    with pytest.raises(CodeNotTrusted) as caught:
        trust.Trust().require(uri="models:/m/1")
    assert "--trust" in caught.value.remedy
    assert "likewise trust models:/m/1" in caught.value.remedy
    trust.Trust(allow=True).require(uri="models:/m/1")


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "s3",
        "sha256:abc",
        " models:/x",
        "::/",
        "runs:/abc/../def",
        "s3://[b",
        "s3://",
        "s3:",
        "http://",
        "gs:/",
        "unknown:/",
        "no/such/folder",
        "/srv/no-such-folder",
        "file:///srv/no-such-folder",
        "~",
        "models",
    ],
)
def test_invalid_trust_is_rejected_even_with_everything(config: Path, entry: str) -> None:
    for everything in (False, True):
        with pytest.raises(WrongUsage):
            trust.remember(entry, everything=everything)
    with pytest.raises(WrongUsage):
        trust.forget(entry)


@pytest.mark.parametrize(
    ("entry", "covered"),
    [
        ("/", "/srv/m"),
        ("file:///", "/srv/m"),
        ("file:/", "/srv/m"),
        ("/tmp", "/tmp/m"),
        ("/tmp/", "/tmp/m"),
        ("file:///tmp", "/tmp/m"),
        ("/tmp/..", "/srv/m"),
        ("/var", "/var/lib/m"),
        ("/home", "/home/me/m"),
        ("HOME", "HOME/m"),
        ("HOME/inner/..", "HOME/m"),
        (".", "HOME/m"),
        ("models:/", "models:/m/1"),
        ("models:", "models:/m/1"),
        ("runs:/", "runs:/abc/model"),
        ("mlflow-artifacts:/", "mlflow-artifacts:/0/m"),
        ("mlflow-artifacts://host:5000/", "mlflow-artifacts://host:5000/0/m"),
        ("dbfs:/", "dbfs:/m"),
        ("https://host", "https://host/m"),
        ("https://host:8080/", "https://host:8080/m"),
        ("hdfs://namenode/", "hdfs://namenode/m"),
    ],
)
def test_trust_in_everything_needs_the_option_everything(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entry: str, covered: str
) -> None:
    home = tmp_path / "home"
    (home / "inner").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    entry = entry.replace("HOME", str(home))
    with pytest.raises(WrongUsage) as caught:
        trust.remember(entry)
    assert trust.remembered() == ()
    assert "--everything" in caught.value.remedy
    trust.remember(entry, everything=True)
    assert trust.Trust().allows(uri=covered.replace("HOME", str(home)))
    assert trust.too_wide(trust.remembered()[0].prefix)
    assert trust.forget(entry) == ()


@pytest.mark.parametrize(
    "entry",
    [
        "models:/m",
        "models:/m/1",
        "models:/m@best",
        "runs:/abc",
        "s3://bucket",
        "s3://bucket/",
        "gs://b/f",
        "dbfs:/f",
        "wasbs://container@account.example/",
        "https://host/f",
        "mlflow-artifacts:/0",
        "m",
    ],
)
def test_trust_in_one_model_folder_or_bucket_needs_no_option(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entry: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    trust.remember(entry)
    assert trust.too_wide(entry) is None
    assert trust.Trust().allows(uri=entry)


def test_invalid_trust_file_is_reported(config: Path) -> None:
    (config / "trust.json").write_text("{")
    with pytest.raises(WrongUsage, match=r"trust\.json"):
        trust.remembered()
    for text in ('{"a": 1}', '["models:/m"]', '[{"prefix": "models:/m"}]', "7"):
        (config / "trust.json").write_text(text)
        with pytest.raises(WrongUsage, match="list"):
            trust.remembered()


def test_model_cannot_end_a_program_unnoticed() -> None:
    ended = subprocess.run([sys.executable, "-c", EXITS], capture_output=True, text=True, check=False)
    assert ended.stdout == "[7] the model raised RuntimeError: the model called os._exit(0)\n"
    assert ended.returncode == 5
