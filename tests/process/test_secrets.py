"""Secrets in URIs and in the environment reach nothing that is stored, shown or sent, for each kind of source."""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

import boto3
import mlflow
import pandas as pd
import pytest
from botocore.httpsession import URLLib3Session
from starlette.testclient import TestClient
from tests.support.artifact_server import artifact_server
from tests.support.aws.account import Account
from tests.support.cli import call
from tests.support.containers.images import AMD64, small_base
from tests.support.models import save_code, save_upper, upper
from tests.support.s3 import s3_server
from tests.support.tracking_server import tracking_server

from likewise.api import Bundle, open_bundle
from likewise.builder.bundle import build_bundle, cached_bundle
from likewise.builder.trace import distinct
from likewise.bundles.format import ModelSource
from likewise.bundles.open import write_manifest
from likewise.bundles.trust import Trust
from likewise.core.errors import CodeNotTrusted, ModelInvalid, NotSelfContained, TargetUnavailable, WrongUsage
from likewise.core.items import Row
from likewise.core.signature import Signature
from likewise.images import build
from likewise.images.build import ImageOptions, build_image
from likewise.images.layers import make_layer
from likewise.images.store import Part, Store
from likewise.parity import VerifyOptions
from likewise.parity.backends import backend
from likewise.parity.comparison import Comparison
from likewise.parity.golden import Golden
from likewise.pipeline import Classify, DetectLanguage, Pipeline, Respond
from likewise.pipeline.log import save_model
from likewise.pipeline.mlmodel import read_model
from likewise.server import ServerOptions
from likewise.serving import bundle_app
from likewise.testing.models import upper_bundle

pytest_plugins = ("tests.support.aws.fixtures",)
TRUSTED = Trust(allow=True, entries=())
PASSWORD = "Planted+Secret/17"
LOGIN = f"user:{PASSWORD}"
USER = f"user:{quote(PASSWORD, safe='')}@"  # in a URI
ENVIRONMENT = dict.fromkeys(
    (
        *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCESS_KEY", "DATABRICKS_TOKEN", "HF_TOKEN"),
        *("MLFLOW_TRACKING_PASSWORD", "DOCKER_PASSWORD", "DATABASE_URL"),
    ),
    PASSWORD,
) | {"AWS_ACCESS_KEY_ID": "key", "AWS_DEFAULT_REGION": "us-east-1"}


def forms(secret: str) -> Iterator[bytes]:
    """The secret as text, percent-encoded, and in base64 at each position in a group of three bytes."""
    yield from (secret.encode(), quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode())
    for before in range(3):
        yield base64.b64encode(b"\0" * before + secret.encode())[4 * (before > 0) : -4]


def leaks(*texts: str | bytes) -> list[str]:
    """The parts of `texts` around each form of the password."""
    found = []
    for text in texts:
        data = text.encode() if isinstance(text, str) else text
        found += [repr(data[max(0, at - 80) : at + 40]) for form in forms(PASSWORD) if (at := data.find(form)) >= 0]
    return found


def leaks_in(folder: Path) -> list[str]:
    """The files below `folder` that contain the password, in their bytes or their decompressed bytes."""
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        content = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else b""
        found += [f"{path}: {leak}" for leak in leaks(data, content)]
    return found


def test_every_form_of_the_password_is_found() -> None:
    for text in (PASSWORD, USER, base64.b64encode(LOGIN.encode()).decode(), json.dumps({"uri": f"http://{USER}h"})):
        assert leaks(f"before {text} after")


# --- a model from each kind of source --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planted:
    """A bundle of the model `Upper`, and everything that the commands that built it have printed."""

    path: Path
    data: Path
    output: str
    environment: Mapping[str, str]

    def call(self, *words: str | Path, code: int = 0) -> str:
        """All output of a command with this source's environment."""
        done = call(*words, env=self.environment)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr


@contextmanager
def at_http(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    save_upper(folder / "store" / "upper")
    with artifact_server({LOGIN: folder / "store"}) as address:
        yield f"http://{USER}{address}/upper", {}


@contextmanager
def at_s3(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    model = save_upper(folder / "upper")
    with s3_server(folder / "log") as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setattr("boto3.DEFAULT_SESSION", None)  # an earlier test's would keep its credentials
        session = boto3.Session("key", PASSWORD, region_name="us-east-1")
        client = session.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="models")
        for path in sorted(p for p in model.rglob("*") if p.is_file()):
            client.upload_file(str(path), "models", f"upper/{path.relative_to(model).as_posix()}")
        endpoints = {"AWS_ENDPOINT_URL": endpoint, "MLFLOW_S3_ENDPOINT_URL": endpoint}
        yield f"s3://models/upper?X-Amz-Signature={PASSWORD}", endpoints


@contextmanager
def at_tracking_server(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with tracking_server(folder) as address:
        uri = address.replace("://", f"://{USER}")
        mlflow.set_tracking_uri(uri)
        try:
            with mlflow.start_run():
                mlflow.pyfunc.log_model(name="upper", registered_model_name="upper", **upper())
        finally:
            mlflow.set_tracking_uri(None)
        yield "models:/upper/1", {"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": f"{uri}/"}


@contextmanager
def at_path(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    yield str(save_upper(folder / "upper")), {}


SOURCES = [
    *(at_http, at_s3, at_path),
    pytest.param(at_tracking_server, marks=pytest.mark.long),
]

DEPLOYED = pytest.mark.parametrize("planted", [at_http], indirect=True)  # a bundle does not depend on its source


@pytest.fixture(scope="module", params=SOURCES)
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("secrets")
    homes = {f"LIKEWISE_{name}_HOME": str(folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
    base = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_"))}
    with ExitStack() as sources:
        uri, settings = sources.enter_context(request.param(folder))
        env = {**base, **ENVIRONMENT, **settings, **homes}
        built = call("bundle", uri, "-o", folder / "bundle", "--trust", env=env)
        done = [
            built,
            call("trust", uri.partition("?")[0], env=env),
            call("inspect", uri.replace("upper", "nothing"), env={**env, "LIKEWISE_DEBUG": "1"}),
        ]
        if request.param is at_http:
            done.append(call("inspect", uri, "--json", env=env))  # into the cache; trusted by the entry
    assert [each.returncode for each in done] == [0, 0, 1, 0][: len(done)], [each.stderr for each in done]
    output = "".join(each.stdout + each.stderr for each in done)
    return Planted(folder / "bundle", folder / "data", output, env)


def test_bundle_cache_trust_list_and_output_have_no_secret(planted: Planted) -> None:
    assert leaks(planted.output) == []
    for folder in (planted.path, planted.path.with_name("config"), planted.path.with_name("cache")):
        assert leaks_in(folder) == []
    source = open_bundle(planted.path).manifest.source
    assert source.uri.partition("://")[2][:9] in ("127.0.0.1", "models/up", ""), "the rest of the URI is unchanged"


def test_page_and_descriptions_of_the_service_have_no_secret(planted: Planted) -> None:
    bundle = open_bundle(planted.path, trust=True)
    with TestClient(bundle_app(bundle, bundle.spec(), ServerOptions())) as client:
        name = client.get("/openapi.json").json()["info"]["title"]
        routes = (
            "/",
            "/bundle.json",
            "/docs",
            "/openapi.json",
            "/version",
            "/metrics",
            "/v2",
            f"/v2/models/{quote(name, safe='')}",
        )
        answers = [client.get(route) for route in routes]
        answers.append(client.post("/invocations", json={"inputs": ["a"]}))
    assert leaks(*(answer.content for answer in answers), *(str(answer.headers) for answer in answers)) == []


def test_image_has_no_secret(planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's layer, which has installed packages only, is replaced by an empty one."""
    monkeypatch.setattr(build.Wheels, "locked", lambda *_: [])
    monkeypatch.setattr(
        build,
        "environment_layer",
        lambda _, wheels, *__, **___: Part(make_layer(wheels.store, [], AMD64, level=0), made=True),
    )
    store, bundle = Store(tmp_path / "images"), open_bundle(planted.path, trust=True)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    options = ImageOptions(base=str(small_base(tmp_path / "base.tar")))
    reports: list[str] = []
    build_image(bundle, "planted:1", bundle.spec(), options, store=store, report=reports.append)
    assert leaks_in(store.folder) == []
    assert leaks(*reports) == []


@pytest.mark.slow
@DEPLOYED
def test_local_deployment_has_no_secret(planted: Planted) -> None:
    deploy = ("deploy", planted.path, "--to", "local", "--name", "planted", "--trust")
    outputs = [planted.call(*deploy, "--plan", "--json"), planted.call(*deploy)]
    try:
        commands = (["list"], ["list", "--json"], ["status", "planted"], ["predict", "planted", '{"inputs": ["a"]}'])
        outputs += [planted.call(*command) for command in commands]
        assert {path.name for path in planted.data.rglob("*")} >= {"receipts.db", "deployment.json", "log"}
        assert leaks_in(planted.data) == []
    finally:
        outputs.append(planted.call("delete", "planted"))
    assert leaks(*outputs) == []


@pytest.mark.slow
@DEPLOYED
@pytest.mark.xdist_group("sagemaker")
def test_requests_to_sagemaker_have_no_secret(
    planted: Planted, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str | bytes] = []

    def send(session: object, request: Any) -> Any:
        sent.extend([request.url, str(request.headers), request.body if isinstance(request.body, bytes) else b""])
        return real(session, request)

    real = URLLib3Session.send
    monkeypatch.setattr(URLLib3Session, "send", send)
    options = [word for name, value in account.options("one:1").items() for word in ("-C", f"{name}={value}")]
    deploy = ("deploy", planted.path, "--to", account.uri, "--name", "planted", "--trust", *options)
    outputs = [call(*deploy, "--plan", "--json"), call(*deploy), call("list", "--json"), call("delete", "planted")]
    assert [done.returncode for done in outputs] == [0, 0, 0, 0], outputs[1].stderr
    assert any(b"CreateEndpoint" in each or b"EndpointName" in each for each in sent if isinstance(each, bytes))
    assert leaks(*sent, *(done.stdout + done.stderr for done in outputs)) == []


# --- references ------------------------------------------------------------------------------------------------------

READS = """
import os
import mlflow

class Reads(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        users = os.environ.get("USERS_OF_NOTES", "").split()
        self.notes = [mlflow.artifacts.load_text(f"http://{user}{{address}}/notes.txt") for user in users or [""]]

    def predict(self, context, model_input, params=None):
        return self.notes * len(model_input)

mlflow.models.set_model(Reads())
"""


@contextmanager
def reading(folder: Path, monkeypatch: pytest.MonkeyPatch, *notes: str) -> Iterator[tuple[Path, str]]:
    """A model that opens `notes.txt` once as each user, each of whom has another text; and the address of the notes."""
    monkeypatch.setenv("LIKEWISE_CACHE_HOME", str(folder / "cache"))
    users = [(f"user{number}:{PASSWORD}", text) for number, text in enumerate(notes)]
    for number, (_, text) in enumerate(users):
        (folder / str(number)).mkdir()
        (folder / str(number) / "notes.txt").write_text(text)
    with artifact_server({login: folder / str(number) for number, (login, _) in enumerate(users)}) as address:
        in_uris = [f"{login.replace(PASSWORD, quote(PASSWORD, safe=''))}@" for login, _ in users]
        monkeypatch.setenv("USERS_OF_NOTES", " ".join(in_uris))
        yield save_code(folder / "model", READS.replace("{{address}}", address)), address


def test_traced_reference_is_vendored_and_found_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[str] = []
    with reading(tmp_path, monkeypatch, "noted", "noted") as (model, address):
        bundle, again = (cached_bundle(str(model), trust=TRUSTED, report=reports.append) for _ in range(2))
    assert [r.uri for r in bundle.manifest.references] == [f"http://{address}/notes.txt"]
    assert again == bundle
    assert leaks(*reports) == leaks_in(tmp_path / "cache") == []
    for users in (os.environ["USERS_OF_NOTES"], ""):
        monkeypatch.setenv("USERS_OF_NOTES", users)
        with open_bundle(bundle.path, trust=True) as opened:
            assert set(opened.predict(pd.DataFrame({"x": [1]}))) == {"noted"}


def test_references_that_differ_only_in_their_user_are_not_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reading(tmp_path, monkeypatch, "noted", "other") as (model, address):
        users = os.environ["USERS_OF_NOTES"].split()
        with pytest.raises(NotSelfContained, match=r"notes\.txt has different contents") as refused:
            build_bundle(str(model), tmp_path / "bundle", trust=TRUSTED)
        monkeypatch.setenv("USERS_OF_NOTES", "")
        given = [f"http://{user}{address}/notes.txt" for user in users]
        with pytest.raises(NotSelfContained, match=r"notes\.txt has different contents"):
            build_bundle(str(model), tmp_path / "bundle", trust=TRUSTED, references=given)
    assert leaks(str(refused.value), refused.value.remedy) == []


def test_opened_uris_are_merged_only_if_their_contents_are_equal(tmp_path: Path) -> None:
    files = {}
    for name, text in (("a", "1"), ("b", "1"), ("c", "2"), ("dir/x", "1")):
        files[name] = tmp_path / name
        files[name].parent.mkdir(exist_ok=True)
        files[name].write_text(text)
    opened = {f"http://{USER}h/x": files["a"], "http://h/x": files["b"]}
    assert list(distinct(opened, {})) == ["http://h/x"]
    assert distinct(opened, {"http://h/x": files["b"]}) == {}
    assert list(distinct({f"http://{USER}h/x": files["a"], "http://h": tmp_path / "dir"}, {})) == ["http://h"]
    for other in (
        {"http://h/x?sig=1": files["c"]},
        {f"http://{USER}h/x#1": files["c"]},
        {"http://h": tmp_path, f"http://{USER}h/x": files["c"]},
    ):
        with pytest.raises(NotSelfContained, match="different contents"):
            distinct({**opened, **other}, {})
    with pytest.raises(NotSelfContained, match="different contents"):
        distinct(opened, {"http://h/x": files["c"]})


def test_declared_reference_with_a_password_is_refused(tmp_path: Path) -> None:
    declared = {"likewise": {"references": [f"http://{USER}host/x"]}}
    model = save_upper(tmp_path / "model", metadata=declared)
    with pytest.raises(ModelInvalid, match="declares the reference http://host/x with user information") as refused:
        build_bundle(str(model), tmp_path / "bundle", trust=TRUSTED)
    with pytest.raises(WrongUsage, match="opens s3://bucket/x with user information") as logged:
        save_model(Pipeline(DetectLanguage(), Classify(f"s3://{USER}bucket/x"), Respond()), tmp_path / "logged")
    assert leaks(str(refused.value.as_dict()), str(logged.value.as_dict())) == []


def test_password_in_the_models_requirements_is_reported_and_not_in_the_manifest(tmp_path: Path) -> None:
    model = save_upper(tmp_path / "model")
    with (model / "requirements.txt").open("a") as stream:
        stream.write(f"\n--extra-index-url https://{USER}host/simple\n")
    reports: list[str] = []
    with pytest.raises(CodeNotTrusted):
        build_bundle(str(model), tmp_path / "bundle", trust=Trust(entries=()), report=reports.append)
    assert "requirements.txt contains a URI with user information" in reports[-1]
    assert leaks(*reports) == []
    assert "--extra-index-url https://host/simple" in read_model(model).environment.requirements


# --- other entrances -------------------------------------------------------------------------------------------------


def test_source_of_a_bundle_of_an_older_version_is_shown_without_its_password(tmp_path: Path) -> None:
    old = open_bundle(upper_bundle(tmp_path / "old", ""))
    source = ModelSource(f"http://{USER}host/x?sig={PASSWORD}", f"http://{USER}host/x")
    write_manifest(old.path, replace(old.manifest, source=source))
    bundle = open_bundle(old.path, trust=True)
    assert bundle.spec().source == "http://host/x"
    with TestClient(bundle_app(bundle, bundle.spec(), ServerOptions())) as client:
        assert leaks(client.get("/").content, client.get("/openapi.json").content) == []
    done = call("inspect", old.path, "--json")
    assert leaks(done.stdout, call("inspect", old.path).stdout) == []


def arguments(bundle: Path, rows: Path) -> Sequence[Sequence[str | Path]]:
    """Commands with a password in each argument that may be a URI or the name of an image."""
    options = ["--name", "x", "--trust"]
    here = f"http://{USER}127.0.0.1:9"
    return [
        *(
            ["inspect", f"{scheme}://{USER}127.0.0.1:9/x"]
            for scheme in ("http", "s3", "ftp", "mlflow-artifacts", "foo")
        ),
        *(["inspect", f"{scheme}://{USER}databricks/x/1"] for scheme in ("http", "gs", "wasbs")),
        ["inspect", f"s3://key:{PASSWORD}@bucket/x"],
        *(["score", bundle, f"{scheme}://{USER}host/x.csv", "-o", "out", "--trust"] for scheme in ("http", "s3")),
        ["score", bundle, f"s3://key:{PASSWORD}@host/x.csv", "-o", "out", "--trust"],
        ["score", bundle, rows, "-o", f"s3://{USER}host/out", "--trust"],
        ["verify", bundle, "--against", here, "--golden", rows, "--trust"],
        ["verify", bundle, "--against", f"{here}/x?token={PASSWORD}", "--golden", rows, "--trust"],
        ["verify", bundle, "--against", f"http://user:{PASSWORD}@127.0.0.1:9", "--golden", rows, "--trust"],
        *(
            ["verify", bundle, "--against", "local", "--golden", f"{scheme}://{USER}host/x.csv", "--trust"]
            for scheme in ("http", "s3")
        ),
        *(
            ["deploy", bundle, "--to", f"{target}{USER}host", *options]
            for target in (
                "ray://",
                "ray-serve://",
                "local://",
                "container:/",
                "container://",
                "sagemaker:/",
                "http://",
            )
        ),
        ["deploy", bundle, "--to", f"sagemaker:/eu-west-1?endpoint_url={here}", *options],
        ["deploy", bundle, "--to", f"sagemaker:/eu-west-1?token={PASSWORD}", *options],
        ["transform", bundle, f"s3://{USER}host/in", "-o", "s3://b/o", "--to", "sagemaker:/eu-west-1", "--trust"],
        ["image", "build", bundle, "-t", f"{USER}registry/x:1", "--trust"],
        ["image", "build", bundle, "-t", "x:1", "--base", f"{USER}registry/x:1", "--trust"],
        ["image", "push", "x:1", f"{USER}registry/x:1"],
        ["trust", f"http://host/x?token={PASSWORD}"],
        ["trust", "--remove", f"http://{USER}host/x"],
    ]


def test_arguments_with_passwords_are_refused_without_showing_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"LIKEWISE_{name}_HOME", str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    bundle, rows = upper_bundle(tmp_path / "bundle", ""), tmp_path / "rows.csv"
    rows.write_text("text\na\n")
    monkeypatch.setenv("LIKEWISE_DEBUG", "1")
    for words in arguments(bundle, rows):
        done = call(*words)
        assert done.returncode in (1, 2), words
        assert leaks(done.stdout, done.stderr) == []
    assert leaks_in(tmp_path) == []


def test_user_information_of_a_url_is_sent_as_basic_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[urllib.request.Request] = []

    def refuse(request: urllib.request.Request, **_: object) -> None:
        sent.append(request)
        raise OSError(f"no {request.full_url}")

    monkeypatch.setattr("likewise.core.proxies.OPENER.open", refuse)
    bundle = cast("Bundle", SimpleNamespace(signature=Signature(), manifest=SimpleNamespace(row_wise=True)))
    golden = Golden("made up", [Row(("text",), ("a",))])
    comparison = Comparison(golden, [], bundle, "", random.Random(1), lambda _: None)
    for url in (f"http://{USER}host", f"http://{USER}host/x?token={PASSWORD}"):
        with pytest.raises(TargetUnavailable) as refused:
            backend(url, VerifyOptions()).predict(comparison)
        assert leaks(str(refused.value)) == []
    assert [each.full_url for each in sent] == ["http://host/invocations", f"http://host/x?token={PASSWORD}"]
    assert base64.b64decode(str(sent[0].get_header("Authorization")).removeprefix("Basic ")) == LOGIN.encode()


@pytest.mark.parametrize(
    "store", [f"http://{USER}127.0.0.1:9", f"http://user:{PASSWORD}@127.0.0.1:9", f"postgresql://{USER}127.0.0.1:9/db"]
)
def test_store_with_a_password_is_not_shown_or_stored(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CACHE", "CONFIG"):
        monkeypatch.setenv(f"LIKEWISE_{name}_HOME", str(tmp_path / name))
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        env = {**os.environ, variable: store, "LIKEWISE_DEBUG": "1"}
        for words in (["inspect", "models:/a/1"], ["trust", "models:/a"], ["trust", "--list", "--json"]):
            done = call(*words, env=env)
            assert leaks(done.stdout, done.stderr) == []
    assert leaks_in(tmp_path) == []
