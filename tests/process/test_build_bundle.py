"""Building bundles: a model that opens other artifacts works from its bundle without the store."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from tests.support.build_store import EXAMPLE, Store, _one_store, predict_in_new_process, store
from tests.support.processes import LIKEWISE, run

from likewise.builder.bundle import build_bundle, cached_bundle
from likewise.bundles.open import Bundle, open_bundle
from likewise.bundles.trust import Trust
from likewise.core.errors import (
    BundleTampered,
    CodeNotTrusted,
    LikewiseError,
    ModelInvalid,
    ModelNotFound,
    NotSelfContained,
    OutputRefused,
    RowWiseRefuted,
)
from likewise.pipeline import DetectLanguage, Respond

__all__ = ["_one_store", "store"]
TRUSTED = Trust(allow=True, entries=())
UNTRUSTED = Trust(allow=False, entries=())
LIGHT = DetectLanguage(), Respond()  # needs neither trust nor torch


# --- references -------------------------------------------------------------------------------------------------------

OPENS_MUCH = """
def load_context(self, context):
    import subprocess
    self.by_run = mlflow.sklearn.load_model("{classifier}")
    self.by_alias = mlflow.pyfunc.load_model("models:/classifier@champion")
    with open(mlflow.artifacts.download_artifacts("runs:/{run}/notes.txt")) as notes:
        self.note = notes.read().strip()
    whole = mlflow.artifacts.download_artifacts(run_id="{other}")
    self.whole = open(whole + "/words.txt").read()
    root = mlflow.MlflowClient().get_run("{other}").info.artifact_uri
    self.again = mlflow.artifacts.load_text(root + "/words.txt")
    self.kernel = subprocess.check_output(["uname", "-s"], text=True).strip()

def predict(self, context, model_input, params=None):
    one = self.by_run.predict(model_input.to_numpy())
    other = self.by_alias.predict(model_input.to_numpy())
    late = open(mlflow.artifacts.download_artifacts("runs:/{run}/late.txt")).read()
    rest = [self.note, self.whole, self.again, self.kernel, late]
    return pd.DataFrame({{"answer": [" ".join([a, b, *rest]) for a, b in zip(one, other)]}})
"""


def test_model_with_every_kind_of_reference_works_without_the_store(store: Store, tmp_path: Path) -> None:
    experiment = mlflow.get_run(store.run_id).info.experiment_id
    with mlflow.start_run(experiment_id=experiment) as other:
        mlflow.log_text("words", "words.txt")
    MlflowClient().log_text(store.run_id, "late", "late.txt")
    body = OPENS_MUCH.format(classifier=store.classifier, run=store.run_id, other=other.info.run_id)
    uri = store.pipeline("much", body, metadata={"likewise": {"row_wise": True}})
    expected = mlflow.pyfunc.load_model(uri).predict(EXAMPLE).to_dict(orient="records")
    lines: list[str] = []

    by_prefix = Trust(entries=(f"runs:/{store.run_id}",))
    bundle = build_bundle(uri, tmp_path / "bundle", trust=by_prefix, row_wise=False, report=lines.append)

    assert not bundle.manifest.row_wise
    assert {(r.uri, r.via) for r in bundle.manifest.references} == {
        (store.classifier, "traced"),
        ("models:/classifier@champion", "traced"),
        (f"runs:/{store.run_id}/notes.txt", "traced"),
        (f"runs:/{store.run_id}/late.txt", "traced"),  # opened while predicting the example
        (f"runs:/{other.info.run_id}", "traced"),
    }
    assert bundle.manifest.measured["proved"] in ("namespaces", "audit hook")
    assert any("champion" in line for line in lines)
    assert [line for line in lines if "cannot be traced: uname -s" in line]
    with store.gone():
        assert predict_in_new_process(bundle.path, tmp_path) == expected
    assert expected[0] == {"answer": f"up up the note words words {os.uname().sysname} late"}
    open_bundle(bundle.path)  # predicting has not modified it
    with pytest.raises(OutputRefused, match="another bundle"):
        build_bundle(store.declared("light", *LIGHT), bundle.path, trust=UNTRUSTED)
    note = bundle.resolve(f"runs:/{store.run_id}/notes.txt")
    note.write_bytes(note.read_bytes().replace(b"t", b"T", 1))
    with pytest.raises(BundleTampered, match=r"notes\.txt"):
        open_bundle(bundle.path)


OPENS_BY_ROW = """
def predict(self, context, model_input, params=None):
    [x] = model_input["x"]
    uri = {{1.0: "{given}", 2.0: "{other}", 3.0: "{path}"}}[x]
    return pd.DataFrame({{"answer": [open(mlflow.artifacts.download_artifacts(uri)).read()]}})
"""


def test_untraced_reference_is_vendored_if_given_and_missing_otherwise(
    store: Store, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.folder / "later.txt"
    path.write_text("only here")
    given, other = f"runs:/{store.run_id}/notes.txt", store.classifier
    model = store.pipeline("later", OPENS_BY_ROW.format(given=given, other=other, path=path), example=None)
    bundle = build_bundle(model, tmp_path / "given", trust=TRUSTED, references=[given])
    assert [(r.uri, r.via) for r in bundle.manifest.references] == [(given, "given")]
    monkeypatch.setenv(
        "TMPDIR", str(tmp_path_factory.mktemp("tmp"))
    )  # otherwise all paths here would count as temporary
    given_result, *missing = predict_in_new_process(bundle.path, tmp_path, (1.0, 2.0, 3.0))
    assert given_result == {"answer": "the note\n"}
    for error, uri in zip(missing, (other, str(path)), strict=True):
        assert (error["code"], uri in error["cause"]) == ("REFERENCE_MISSING", True)
    assert f"--reference {other}" in missing[0]["remedy"]


# --- errors -----------------------------------------------------------------------------------------------------------


def test_failed_build_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no_such_model"):
        build_bundle(f"runs:/{store.run_id}/no_such_model", tmp_path / "out" / "b", trust=TRUSTED)
    with pytest.raises(ModelInvalid, match="no MLmodel"):
        build_bundle(f"runs:/{store.run_id}", tmp_path / "out" / "b", trust=TRUSTED)
    with pytest.raises(ModelNotFound, match="runs:/0123/x"):
        build_bundle(store.classifier, tmp_path / "out" / "b", trust=TRUSTED, references=["runs:/0123/x"])
    assert list((tmp_path / "out").iterdir()) == []


def test_output_inside_the_model_is_rejected(store: Store) -> None:
    model = next(store.folder.rglob("MLmodel")).parent
    with pytest.raises(OutputRefused, match="own folder"):
        build_bundle(str(model), model / "bundle", trust=TRUSTED)


ACCESSES_OUTSIDE = """
def load_context(self, context):
    import sqlite3, subprocess
    open("{folder}/plain.txt").read()
    with sqlite3.connect("{folder}/mlflow.db") as database:
        database.execute("select count(*) from sqlite_master").fetchone()
    subprocess.check_output(["cat", "{folder}/w.txt"])

def predict(self, context, model_input, params=None):
    return model_input["x"]
"""
LOOKS_AROUND = """
def predict(self, context, model_input, params=None):
    import os
    found = os.path.exists("{path}")
    if not found and {must}:
        raise RuntimeError("no list of words")
    return [str(found)] * len(model_input)
"""
QUERIES_REGISTRY = """
def load_context(self, context):
    version = mlflow.MlflowClient().get_model_version_by_alias("classifier", "champion").version
    self.model = mlflow.sklearn.load_model(f"models:/classifier/{version}")

def predict(self, context, model_input, params=None):
    return self.model.predict(model_input.to_numpy())
"""


def test_outside_files_databases_and_programs_are_rejected_by_name(store: Store, tmp_path: Path) -> None:
    for name in ("plain.txt", "w.txt"):
        (store.folder / name).write_text("weights")
    with pytest.raises(NotSelfContained) as refused:
        build_bundle(
            store.pipeline("outside", ACCESSES_OUTSIDE.format(folder=store.folder)), tmp_path / "b", trust=TRUSTED
        )
    for access in (
        r"opens the file .*plain\.txt",
        r"opens the database .*mlflow\.db",
        r"starts a program on .*w\.txt: cat",
    ):
        assert re.search(access, refused.value.cause)
    assert "artifacts=" in refused.value.remedy
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("must", [True, False])
def test_model_that_only_looks_for_a_file_is_rejected(store: Store, tmp_path: Path, must: bool) -> None:
    isolated = "import sys; from likewise.builder.isolation import isolate_process; sys.exit(isolate_process([], []))"
    if not subprocess.run([sys.executable, "-c", isolated], check=False).returncode:
        pytest.skip("this kernel does not allow namespaces for this user")
    (words := tmp_path / "words.txt").write_text("a")
    uri = store.pipeline(f"looks_{must}", LOOKS_AROUND.format(path=words, must=must))
    raised = "no list of words; it does not raise where it can see all files"
    wrong = raised if must else r"'False'\] in isolation, and \['True'"
    with pytest.raises(NotSelfContained, match=wrong) as refused:
        build_bundle(uri, tmp_path / "b", trust=TRUSTED)
    assert "artifacts=" in refused.value.remedy


def test_registry_query_is_rejected_by_name(store: Store, tmp_path: Path) -> None:
    with pytest.raises(LikewiseError, match=r"get_model_version_by_alias\('classifier', 'champion'\)") as refused:
        build_bundle(store.pipeline("queries", QUERIES_REGISTRY), tmp_path / "b", trust=TRUSTED)
    assert "models:/name@alias" in refused.value.remedy


SENTINEL = """
open("{path}", "w").close()

def predict(self, context, model_input, params=None):
    return model_input["x"]
"""


def test_untrusted_code_never_runs(store: Store, tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    uri = store.pipeline("sentinel", SENTINEL.format(path=sentinel))
    sentinel.unlink()  # logging has run the code and created the file
    with pytest.raises(CodeNotTrusted, match="own Python code"):
        build_bundle(uri, tmp_path / "b", trust=UNTRUSTED)
    with pytest.raises(CodeNotTrusted):
        cached_bundle(uri, trust=UNTRUSTED)
    assert not sentinel.exists()


DEPENDENT_ROWS = """
def predict(self, context, model_input, params=None):
    return pd.DataFrame({"answer": [f"{x - model_input['x'].mean():.3f}" for x in model_input["x"]]})
"""


def test_scan_reads_a_model_in_a_store_without_trust(store: Store, tmp_path: Path) -> None:
    env = {**os.environ, "MLFLOW_TRACKING_URI": store.tracking_uri}
    command = [*LIKEWISE, "scan", "models:/classifier@champion", "--fail-on", "unusual", "--json"]
    imports = json.loads(run(command, cwd=tmp_path, env=env).stdout)["imports"]
    assert {each["path"] for each in imports} == {"model.pkl"}
    assert "sklearn.linear_model._logistic.LogisticRegression" in {each["name"] for each in imports}
    missing = run([*LIKEWISE, "scan", "models:/nobody/1", "--json"], cwd=tmp_path, env=env, code=1)
    assert json.loads(missing.stdout)["error"]["code"] == "MODEL_NOT_FOUND"
    assert list(tmp_path.iterdir()) == []


def test_row_wise_is_refuted_if_rows_depend_on_each_other(store: Store, tmp_path: Path) -> None:
    uri = store.pipeline("dependent_rows", DEPENDENT_ROWS, metadata={"likewise": {"row_wise": True}})
    with pytest.raises(RowWiseRefuted, match="by itself, and"):
        build_bundle(uri, tmp_path / "b", trust=TRUSTED)


WRITES_FILE = """
def predict(self, context, model_input, params=None):
    import pathlib
    (pathlib.Path(__file__).parent / "written.txt").write_text("x")
    return model_input["x"]
"""


def test_model_that_modifies_its_own_files_is_rejected(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotSelfContained, match=r"written\.txt"):
        build_bundle(store.pipeline("writes", WRITES_FILE), tmp_path / "b", trust=TRUSTED)


FAILS_TO_LOAD = """
def load_context(self, context):
    raise RuntimeError("no such luck")

def predict(self, context, model_input, params=None):
    return model_input["x"]
"""


def test_model_that_does_not_load_is_reported(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match="RuntimeError: no such luck"):
        build_bundle(store.pipeline("fails", FAILS_TO_LOAD), tmp_path / "b", trust=TRUSTED)


def _model_with_reference(model: Path, reference: str) -> Path:
    """A model that declares `reference` and does not need its own code."""
    steps = [{"step": "detect_language"}, {"step": "respond"}]
    declared = {"references": [reference], "pipeline": {"format": 1, "uri": "", "steps": steps}}
    model.mkdir()
    (model / "MLmodel").write_text(json.dumps({"flavors": {}, "metadata": {"likewise": declared}}))
    return model


@pytest.mark.parametrize("reference", ["{folder}/secret.txt", "http://192.0.2.1/x", "s3://bucket/x", "runs://host/a/b"])
def test_untrusted_model_cannot_add_outside_references(store: Store, tmp_path: Path, reference: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    uri = reference.format(folder=tmp_path)
    model = _model_with_reference(tmp_path / "model", uri)
    with pytest.raises(CodeNotTrusted, match=re.escape(uri)) as refused:
        build_bundle(str(model), tmp_path / "b", trust=UNTRUSTED)
    assert f"--reference {uri}" in refused.value.remedy


def test_user_can_allow_an_outside_reference(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("words")
    model = _model_with_reference(tmp_path / "model", str(path))
    bundle = build_bundle(str(model), tmp_path / "b", trust=UNTRUSTED, references=[str(path)])
    assert [(r.uri, r.via) for r in bundle.manifest.references] == [(str(path), "given")]


# --- digest, cache, output --------------------------------------------------------------------------------------------


def test_digest_does_not_depend_on_uri_or_output(store: Store, tmp_path: Path) -> None:
    uri = store.declared("placed", *LIGHT)
    by_run = build_bundle(uri, tmp_path / "a", trust=UNTRUSTED)
    by_alias = build_bundle("models:/placed@champion", tmp_path / "deep" / "er" / "b", trust=UNTRUSTED)
    assert by_run.digest == by_alias.digest
    assert by_alias.manifest.source.resolved == "models:/placed/1"
    assert not list(by_alias.path.rglob("registered_model_meta"))
    assert build_bundle(uri, tmp_path / "a", trust=UNTRUSTED).digest == by_run.digest  # already exists
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputRefused, match="exists"):
        build_bundle(uri, tmp_path / "file", trust=UNTRUSTED)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name not in ("config", "cache")) == ["a", "deep", "file"]


OPENS_WHAT_A_FILE_NAMES = """
def load_context(self, context):
    name = mlflow.artifacts.load_text("runs:/{run}/cfg.txt")
    self.text = mlflow.artifacts.load_text("runs:/{run}/" + name)

def predict(self, context, model_input, params=None):
    return pd.DataFrame({{"answer": [self.text for _ in model_input["x"]]}})
"""


def test_cached_model_is_traced_and_verified_again_only_if_something_changed(store: Store, tmp_path: Path) -> None:
    def log(name: str, text: str) -> str:
        MlflowClient().log_text(store.run_id, text, name)
        return f"runs:/{store.run_id}/{name}"

    def cached() -> tuple[Bundle, bool]:
        """The bundle, and whether the model was traced and verified."""
        lines: list[str] = []
        bundle = cached_bundle(uri, trust=TRUSTED, report=lines.append)
        traced, verified = (any(word in line for line in lines) for word in ("tracing", "verifying"))
        assert traced == verified
        return bundle, traced

    a, b, cfg = log("a.txt", "A"), log("b.txt", "B"), log("cfg.txt", "a.txt")
    uri = store.pipeline("named", OPENS_WHAT_A_FILE_NAMES.format(run=store.run_id))
    first, new = cached()
    assert new
    assert [r.uri for r in first.manifest.references] == sorted([a, cfg])
    again, new = cached()
    assert (again.path, new) == (first.path, False)
    log("cfg.txt", "b.txt")
    second, new = cached()
    assert new
    assert [r.uri for r in second.manifest.references] == sorted([b, cfg])
    with store.gone():
        assert predict_in_new_process(second.path, tmp_path)[0] == {"answer": "B"}
    log("cfg.txt", "a.txt")  # an older trace is still valid
    third, new = cached()
    assert (third.path, new) == (first.path, False)


CONCURRENT_BUILD = """
import sys
from likewise.builder import bundle
from likewise.bundles.trust import Trust
prove = bundle.prove

def together(*args, **kwargs):
    proof = prove(*args, **kwargs)
    print("verified", flush=True)
    sys.stdin.readline()  # wait until the other process has reached this point
    return proof

bundle.prove = together
print(bundle.cached_bundle(sys.argv[1], trust=Trust(allow=False, entries=())).digest)
"""


def test_concurrent_builds_of_the_same_bundle_both_succeed(store: Store) -> None:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store.tracking_uri}
    command = [sys.executable, "-c", CONCURRENT_BUILD, store.declared("twice", *LIGHT)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, env=environment, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in both if process.stdout] == ["verified\n", "verified\n"]
    digests = [process.communicate("go\n")[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert digests[0] == digests[1] != ""


NEVER_LOADS = """
def load_context(self, context):
    with open("{fifo}", "w") as fifo:
        print("loading", file=fifo, flush=True)
        import threading; threading.Event().wait()

def predict(self, context, model_input, params=None):
    return model_input["x"]
"""


def test_terminated_command_leaves_no_folder_and_no_process(store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    model = store.pipeline("never_loads", NEVER_LOADS.format(fifo=tmp_path / "fifo"))
    command = [sys.executable, "-m", "likewise.cli", "bundle", model, "-o", str(tmp_path / "out" / "b"), "--trust"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store.tracking_uri}
    started = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with (tmp_path / "fifo").open() as fifo:
        assert fifo.readline() == "loading\n"
        started.terminate()
        started.wait(30)
        assert select.select([fifo], [], [], 10)[0]  # closed when the child exits
        assert fifo.read() == ""
    assert list((tmp_path / "out").iterdir()) == []


FULL_DISK = """
import ctypes, os, sys
import mlflow
from likewise.builder.bundle import build_bundle
from likewise.bundles.trust import Trust
from likewise.core.errors import OutputRefused
libc, user = ctypes.CDLL(None), os.getuid()
if libc.unshare(0x20000 | (0x10000000 if user else 0)) or libc.mount(b"none", b"/", None, 0x4000 | 1 << 18, None):
    sys.exit(77)  # private mounts are not allowed
if libc.mount(b"none", sys.argv[3].encode(), b"tmpfs", 0, b"size=16k"):
    sys.exit(77)
mlflow.set_tracking_uri(sys.argv[1])
try:
    build_bundle(sys.argv[2], sys.argv[3] + "/bundle", trust=Trust(allow=True))
except OutputRefused as error:
    print("REFUSED", error.cause, os.listdir(sys.argv[3]))
"""


def test_full_disk_is_reported_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    command = [sys.executable, "-c", FULL_DISK, store.tracking_uri, store.classifier, str(tmp_path / "disk")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this kernel does not allow mounts for this user")
    assert "REFUSED the output cannot be written: No space left on device []" in done.stdout, done.stderr
