"""The comparison of the versions that a model was logged with to those that run here."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import cloudpickle
import mlflow
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.models import infer_signature
from packaging.requirements import Requirement
from packaging.version import Version
from sklearn.linear_model import LogisticRegression
from tests.support.cli import call
from tests.support.models import seal, upper_bundle

import likewise
from likewise.bundles.format import LoggedEnvironment
from likewise.core.errors import EngineUnavailable, VersionsDiffer
from likewise.core.spec import ModelSpec
from likewise.engine.versions import Versions, alike, compare, has_pickled_code, installed_version

HERE = {"scikit-learn": "1.9.0", "numpy": "2.4.1", "mlflow": "3.17.2", "xgboost-cpu": "3.1.0", "torch": "2.13.0+cpu"}


def compared(
    *lines: str, flavor: str = "sklearn", python: str = "3.11.4", model: Path | None = None, **config: object
) -> Versions:
    return compare(
        LoggedEnvironment(python, lines),
        {"python_function": {}, flavor: config},
        model,
        python="3.11.7",
        installed=lambda name: next((HERE[each] for each in alike(name) if each in HERE), None),
    )


@pytest.mark.parametrize(
    ("flavor", "line", "refused", "others"),
    [
        ("sklearn", "scikit-learn==1.9.0", [], []),
        ("sklearn", "Scikit_Learn==1.9.0  # the newest", [], []),
        ("sklearn", "scikit-learn==1.5.2", [], ["scikit-learn 1.5.2 (here 1.9.0)"]),
        ("sklearn", "scikit-learn==0.24.2", ["scikit-learn 0.24.2 (here 1.9.0)"], []),
        ("sklearn", "scikit-learn==2.*", ["scikit-learn 2.* (here 1.9.0)"], []),
        ("sklearn", "scikit-learn<1", [], ["scikit-learn <1 (here 1.9.0)"]),  # 1 is the major number that it names
        ("sklearn", "scikit-learn>=1,<2", [], []),
        ("sklearn", "scikit-learn>=2,<3", ["scikit-learn <3,>=2 (here 1.9.0)"], []),
        ("sklearn", "scikit-learn", [], []),
        ("sklearn", "scikit-learn[alldeps]==1.9.0; python_version >= '3'", [], []),
        ("sklearn", "scikit-learn==0.1; python_version < '3'", [], []),
        ("sklearn", "scikit-learn==0.1; extra == 'old'", [], []),
        ("xgboost", "xgboost==3.1.0", [], []),
        ("xgboost", "xgboost-cpu==1.7", ["xgboost 1.7 (here 3.1.0)"], []),
        ("pytorch", "torch==2.13.0", [], []),
        ("pytorch", "torch==2.13.0+cu128", [], []),
        ("pytorch", "torch==1.13.1+cpu", ["torch 1.13.1+cpu (here 2.13.0+cpu)"], []),
        ("lightgbm", "lightgbm==4.6", ["lightgbm 4.6 (not installed here)"], []),
        ("lightgbm", "numpy==2.4.1", ["lightgbm (not installed here)"], []),
        ("python_function", "numpy==1.26.4", [], ["numpy 1.26.4 (here 2.4.1)"]),
        ("python_function", "thing @ https://host.example/thing.whl", [], ["thing (not installed here)"]),
        ("python_function", "mlflow==2.9.2", [], ["mlflow 2.9.2 (here 3.17.2)"]),
        ("python_function", "--extra-index-url https://host.example/simple", [], []),
        ("python_function", "-r more.txt", [], []),
        ("python_function", "code/thing-1.0-py3-none-any.whl", [], []),
        ("python_function", "git+https://host.example/thing.git", [], []),
        ("python_function", "numpy==not.a.version", [], []),
        ("python_function", "", [], []),
    ],
    ids=str,
)
def test_each_form_of_a_requirement(flavor: str, line: str, refused: list[str], others: list[str]) -> None:
    versions = compared(line, flavor=flavor)
    assert [str(each) for each in versions.refused] == refused
    assert [str(each) for each in versions.others] == others


def test_the_version_in_the_flavor_counts_where_the_requirements_lack_it() -> None:
    assert [str(each) for each in compared("mlflow", sklearn_version="0.24.2").refused] == [
        "scikit-learn 0.24.2 (here 1.9.0)"
    ]


def test_one_line_names_the_library_first_then_python_and_counts_the_rest() -> None:
    lines = ["aaa==1", "bbb==1", "ccc==1", "mlflow==2.9.2", "numpy==2.4.1", "scikit-learn==1.5.2"]
    note = compared(*lines, python="3.10.2").note or ""
    assert "scikit-learn 1.5.2 (here 1.9.0), Python 3.10.2 (here 3.11.7), aaa 1 (not installed" in note
    assert "), and 3 more; predictions may differ" in note
    assert "\n" not in note
    assert "--env" in note
    assert compared("numpy==2.4.1", "scikit-learn==1.9.0").note is None


def test_a_refusal_names_both_versions_and_what_helps() -> None:
    refusal = compared("scikit-learn==0.24.2").refusal
    assert refusal is not None
    assert isinstance(refusal, EngineUnavailable)  # where another engine can run, that one is used
    assert "scikit-learn 0.24.2 (here 1.9.0)" in refusal.cause
    assert "--env" in refusal.remedy
    assert "--allow-versions" in refusal.remedy
    missing = compared("lightgbm==4.6.0", flavor="lightgbm").refusal
    assert missing is not None
    assert "pip install 'lightgbm==4.6.0'" in missing.remedy
    assert "--env" in missing.remedy


def test_another_python_is_refused_only_for_code_in_pickles(tmp_path: Path) -> None:
    values, code = tmp_path / "values", tmp_path / "code"
    values.mkdir()
    code.mkdir()
    (values / "model.pkl").write_bytes(pickle.dumps({"weights": [1.0], "of": LogisticRegression()}))
    (values / "empty.pkl").touch()
    (code / "python_model.pkl").write_bytes(cloudpickle.dumps(lambda x: x))
    assert (has_pickled_code(values), has_pickled_code(code)) == (False, True)
    same = compared("scikit-learn==1.9.0", python="3.11.1", model=code)
    assert (same.refused, same.others) == ((), ())
    other = compared("scikit-learn==1.9.0", python="3.12.1", model=values)
    assert ([*map(str, other.refused)], [*map(str, other.others)]) == ([], ["Python 3.12.1 (here 3.11.7)"])
    refusal = compared("scikit-learn==1.9.0", python="3.12.1", model=code).refusal
    assert refusal is not None
    assert "Python 3.12.1 (here 3.11.7), which cannot run the code in its pickles" in refusal.cause


names = st.from_regex(r"[a-z][a-z0-9]{0,6}([-_.][a-z0-9]{1,4})?", fullmatch=True)
versions = st.builds(lambda parts: ".".join(map(str, parts)), st.lists(st.integers(0, 40), min_size=1, max_size=4))


@given(name=names, logged=versions, here=versions, flavored=st.booleans())
@example(name="a", logged="1.0", here="1", flavored=True)
def test_an_exact_version_differs_unless_it_is_equal_and_matters_by_its_major_number(
    name: str, logged: str, here: str, flavored: bool
) -> None:
    line = f"{'scikit-learn' if flavored else name}=={logged}"
    flavors: dict[str, dict[str, object]] = {"sklearn": {}} if flavored else {}
    found = compare(LoggedEnvironment(None, (line,)), flavors, installed=lambda _: here)
    equal, same_major = Version(logged) == Version(here), Version(logged).major == Version(here).major
    assert bool(found.refused) is (flavored and not same_major)
    assert bool(found.others) is (not equal and (same_major or not flavored))


@given(st.text() | st.builds("{}{}{}".format, names, st.sampled_from(["", "==", ">=", "~=", "[x]<", ";"]), st.text()))
def test_no_line_breaks_the_comparison(line: str) -> None:
    found = compare(LoggedEnvironment("3.11", (line,)), {"sklearn": {}}, installed=lambda _: "1.0")
    assert len(found.refused) + len(found.others) <= 2
    assert "\n" not in (found.note or "")


def test_installed_versions_are_found_under_the_names_of_the_same_library() -> None:
    assert installed_version("mlflow") == mlflow.__version__
    assert installed_version("xgboost") == installed_version("xgboost-cpu") is not None
    assert installed_version("no-such-thing") is None
    assert Requirement(f"xgboost=={installed_version('xgboost')}")


# --- where the comparison applies -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def old_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scikit-learn model that claims to be from version 0.24."""
    folder = tmp_path_factory.mktemp("old") / "model"
    frame = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
    model = LogisticRegression().fit(frame, [0, 0, 1, 1])
    signature, pins = infer_signature(frame, [0]), ["mlflow", "scikit-learn==0.24.2"]
    mlflow.sklearn.save_model(model, folder, signature=signature, pip_requirements=pins)
    return folder


@pytest.fixture(scope="module")
def old_bundle(old_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sealed")
    shutil.copytree(old_model, folder / "model")
    return seal(folder).path


def test_another_major_version_is_refused_by_each_function_and_runs_if_it_is_allowed(
    old_bundle: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("x\n0.0\n3.0\n")
    opened = likewise.open_bundle(old_bundle, trust=True)
    for refused in (
        lambda: opened.predict(pd.DataFrame({"x": [0.0]})),
        lambda: opened.engine(),
        lambda: likewise.score(old_bundle, rows, tmp_path / "out.csv", trust=True),
        lambda: likewise.serve(old_bundle, trust=True),
        lambda: likewise.verify(old_bundle, ["local"], trust=True),
        lambda: likewise.deploy(old_bundle, "local", "old", trust=True),
    ):
        with pytest.raises(VersionsDiffer, match=r"scikit-learn 0\.24\.2"):
            refused()
    with likewise.open_bundle(old_bundle, trust=True, allow_versions=True) as allowed:
        assert list(allowed.predict(pd.DataFrame({"x": [0.0, 3.0]}))) == [0, 1]
    report = likewise.score(old_bundle, rows, tmp_path / "out.csv", trust=True, allow_versions=True)
    assert report.rows_ok == 2


def test_the_command_line_refuses_allows_and_shows_it(old_model: Path, old_bundle: Path, tmp_path: Path) -> None:
    refused = call("bundle", str(old_model), "-o", str(tmp_path / "b"), "--trust", cwd=tmp_path)
    assert "VERSIONS_DIFFER: the model was logged with scikit-learn 0.24.2" in refused.stderr
    rows = tmp_path / "rows.csv"
    rows.write_text("x\n0.0\n3.0\n")
    flags = ("-o", str(tmp_path / "out.csv"), "--trust", "--allow-versions")
    scored = call("score", str(old_bundle), str(rows), *flags, cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert scored.stderr.count("the model was logged with other versions: scikit-learn 0.24.2") == 1
    shown = call("inspect", str(old_bundle), "--json", cwd=tmp_path)
    differ = json.loads(shown.stdout)["versions"]["differ"]
    assert [(each["name"], each["logged"], each["refused"]) for each in differ] == [("scikit-learn", "0.24.2", True)]


def test_a_model_without_a_flavor_of_a_library_is_not_refused(tmp_path: Path) -> None:
    bundle = upper_bundle(tmp_path, pip_requirements=["mlflow==1.0", "no-such-thing==1"])
    notes: list[str] = []
    opened = likewise.find(bundle, trust=True, report=notes.append)
    assert [note for note in notes if "no-such-thing 1 (not installed here), mlflow 1.0" in note]
    assert opened.spec().allow_versions is False


def test_specs_of_earlier_versions_allow_all_versions() -> None:
    document = ModelSpec("sha256:0").as_dict()
    assert ModelSpec.from_dict(document).allow_versions is False
    del document["allow_versions"]
    assert ModelSpec.from_dict(document).allow_versions is True
