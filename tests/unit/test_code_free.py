"""Which models need no trust: decided by their files, against authors who want their code to run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.support import flavors
from tests.support.processes import run

from likewise import api
from likewise.bundles.format import EngineEntry, Manifest
from likewise.bundles.open import write_manifest
from likewise.core.errors import CodeNotTrusted
from likewise.engine.code_free import flavor_of, why_code
from likewise.engine.flavor import FlavorKind
from likewise.pipeline.mlmodel import read_model

pytestmark = pytest.mark.slow
Edit = Callable[[Path], object]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One model of each flavour, saved when a test first needs it."""
    folder = tmp_path_factory.mktemp("models")

    def saved(name: str) -> Path:
        return folder / name if (folder / name).exists() else flavors.SAVERS[name](folder / name)

    return saved


@pytest.fixture
def copy(models: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(models(name), tmp_path / name))


WITHOUT_TORCH = """
import sys
from pathlib import Path
from likewise.engine.code_free import why_code
print(why_code(Path(sys.argv[1])), "torch" in sys.modules)
import sklearn.externals.array_api_compat.torch  # it can be imported later
"""


def test_scikit_learn_models_are_checked_without_importing_torch(models: Callable[[str], Path]) -> None:
    """Skops imports every package in scikit-learn, and the one that adapts torch would take seconds to do so."""
    done = run([sys.executable, "-c", WITHOUT_TORCH, models("sklearn")])
    assert done.stdout == "None False\n"


def settings(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = yaml.safe_load((folder / "MLmodel").read_text())
    change(document)
    (folder / "MLmodel").write_text(yaml.safe_dump(document))


def put(section: str, **values: object) -> Edit:
    return lambda folder: settings(folder, lambda document: document["flavors"][section].update(values))


def top(**values: object) -> Edit:
    return lambda folder: settings(folder, lambda document: document.update(values))


def write(name: str, text: str = "import os") -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return edit


def in_json(name: str, **values: object) -> Edit:
    return lambda folder: (folder / name).write_text(json.dumps({**json.loads((folder / name).read_bytes()), **values}))


def both(*edits: Edit) -> Edit:
    return lambda folder: [edit(folder) for edit in edits]


class Touch:
    """Creates the file `path` when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def canary(folder: Path) -> Path:
    return folder.with_name("canary")


def pickle_as(name: str) -> Edit:
    return lambda folder: (folder / name).write_bytes(pickle.dumps(Touch(str(canary(folder)))))


def skops_of_function(folder: Path) -> None:
    """A skops file that calls `os.mkdir` when the model predicts, and an author who claims that this is fine."""
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    skops.io.dump(FunctionTransformer(os.mkdir), folder / "model.skops")
    put("sklearn", skops_trusted_types=skops.io.get_untrusted_types(file=folder / "model.skops"))(folder)


def linked(folder: Path) -> None:
    outside = folder.with_name("outside.skops")
    (folder / "model.skops").rename(outside)
    (folder / "model.skops").symlink_to(outside)


MODEL = "model.sentence_transformer"
EVIL = [{"idx": 0, "name": "0", "path": "", "type": "evil.Module"}]
TABULAR: dict[str, tuple[str, Edit]] = {
    "code paths": ("sklearn", both(put("python_function", code="code"), write("code/sklearn.py"))),
    "code paths of the flavor": ("xgboost", both(put("xgboost", code="code"), write("code/xgboost.py"))),
    "a module next to the model": ("sklearn", write("usercustomize.py")),
    "another loader": ("sklearn", both(put("python_function", loader_module="evil"), write("evil.py"))),
    "a hand-written pyfunc": ("sklearn", put("python_function", loader_module="mlflow.pyfunc.model")),
    "the loader of another flavor": ("xgboost", put("python_function", loader_module="mlflow.statsmodels")),
    "a pickle": ("sklearn", both(pickle_as("model.skops"), put("sklearn", serialization_format="pickle"))),
    "a pickle called skops": ("sklearn", pickle_as("model.skops")),
    "a pickle by default": ("sklearn", both(pickle_as("model.skops"), lambda folder: settings(
        folder, lambda document: document["flavors"]["sklearn"].pop("serialization_format")))),
    "a pickle next to it": ("xgboost", pickle_as("model.pkl")),
    "a function in skops": ("sklearn", skops_of_function),
    "a class to import": ("xgboost", put("xgboost", model_class="subprocess.Popen")),
    "a pickle for XGBoost": ("xgboost", pickle_as("model.ubj")),
    "a file elsewhere": ("xgboost", both(put("xgboost", data="../x.ubj"), put("python_function", data="../x.ubj"))),
    "two files": ("xgboost", both(write("other.ubj", "{"), put("python_function", data="other.ubj"))),
    "two paths": ("sklearn", both(write("other.skops"), put("python_function", model_path="other.skops"))),
    "a folder": ("xgboost", both(put("xgboost", data="."), put("python_function", data="."))),
    "a link": ("sklearn", linked),
    "another method": ("sklearn", put("python_function", predict_fn="get_raw_model")),
    "a model config": ("sklearn", put("python_function", config={"x": 1})),
    "code of the model": ("sklearn", put("python_function", model_code_path="model.py")),
    "streaming": ("sklearn", put("python_function", streamable=True)),
    "an environment that is a path": ("sklearn", put("python_function", env={"conda": "../conda.yaml"})),
    "another flavor": ("sklearn", lambda folder: settings(
        folder, lambda document: document["flavors"].update(keras={"data": "data"}))),
    "types of the model": ("sklearn", top(is_signature_from_type_hint=True)),
    "an example elsewhere": ("sklearn", top(saved_input_example_info={"artifact_path": "../x.json"})),
    "YAML with a tag": ("sklearn", write("MLmodel", "!!python/object/apply:os.getcwd []")),
    "no settings": ("sklearn", write("MLmodel", "[]")),
}  # fmt: skip
TEXTS: dict[str, tuple[str, Edit]] = {
    "remote code": ("transformers", in_json("model/config.json", auto_map={"AutoModel": "evil.Model"})),
    "trusted remote code": ("transformers", in_json("model/config.json", trust_remote_code=True)),
    "a pipeline's code": ("transformers", in_json("model/config.json", custom_pipelines={"x": {"impl": "evil.P"}})),
    "a kernel": ("transformers", in_json("model/config.json", attn_implementation="evil/kernel")),
    "a renamed setting": ("transformers", in_json("model/config.json", attribute_map={"dtype": "hidden_act"})),
    "a function of torch": ("transformers", in_json("model/config.json", dtype="load")),
    "a quantizer": ("transformers", in_json("model/config.json", quantization_config={"quant_method": "evil"})),
    "a nested name": ("transformers", in_json("model/config.json", inner={"inner": ["evil.Class"]})),
    "an architecture": ("transformers", in_json("model/config.json", model_type="evil")),
    "a class of the model": ("transformers", in_json("model/config.json", architectures=["EvilModel"])),
    "a class in MLmodel": ("transformers", put("transformers", pipeline_model_type="EvilModel")),
    "a tokenizer's code": ("transformers", in_json(
        "components/tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})),
    "a tokenizer's class": ("transformers", put("transformers", tokenizer_type="EvilTokenizer")),
    "a tokenizer's class in its file": ("transformers", in_json(
        "components/tokenizer/tokenizer_config.json", tokenizer_class="Evil")),
    "a template": ("transformers", in_json("components/tokenizer/tokenizer_config.json", chat_template="{{ x }}")),
    "a template file": ("transformers", write("components/tokenizer/chat_template.jinja", "{{ x }}")),
    "pickled weights": ("transformers", lambda folder: (folder / "model/model.safetensors").rename(
        folder / "model/pytorch_model.bin")),
    "pickled weights next to safetensors": ("transformers", pickle_as("model/pytorch_model.bin")),
    "an index of pickles": ("transformers", write(
        "model/model.safetensors.index.json", json.dumps({"weight_map": {"w": "../evil.bin"}}))),
    "an adapter": ("transformers", write("model/adapter_config.json", '{"base_model_name_or_path": "/evil"}')),
    "code next to the weights": ("transformers", write("model/modeling_evil.py")),
    "generation": ("transformers", put("transformers", task="text-generation")),
    "files by name": ("transformers", put("transformers", task="image-classification")),
    "a type of torch": ("transformers", put("transformers", torch_dtype="os.system")),
    "a model of the hub": ("transformers", put("transformers", source_model_revision="main")),
    "a base model elsewhere": ("transformers", put("transformers", local_base_model_path="/evil")),
    "another component": ("transformers", put("transformers", components=["tokenizer", "image_processor"])),
    "params": ("transformers", top(signature={"inputs": '[{"type": "string"}]', "outputs": None, "params": json.dumps(
        [{"name": "custom_generate", "type": "string", "default": "/evil", "shape": None}])})),
    "a module": ("sentence_transformers", write(f"{MODEL}/modules.json", json.dumps(EVIL))),
    "a dense layer": ("sentence_transformers", both(
        lambda folder: (folder / MODEL / "modules.json").write_text(json.dumps([
            *json.loads((folder / MODEL / "modules.json").read_bytes()),
            {"idx": 9, "name": "9", "path": "9_Dense", "type": "sentence_transformers.models.Dense"}])),
        write(f"{MODEL}/9_Dense/config.json", '{"activation_function": "evil.Class"}'))),
    "a module's settings": ("sentence_transformers", write(f"{MODEL}/1_Pooling/config.json", '{"activation": "os.x"}')),
    "loading options": ("sentence_transformers", in_json(
        f"{MODEL}/sentence_bert_config.json", model_args={"attn_implementation": "evil/kernel"})),
    "another method of the model": ("sentence_transformers", in_json(
        f"{MODEL}/sentence_bert_config.json", modality_config={"text": {"method": "save_pretrained"}})),
    "images": ("sentence_transformers", in_json(
        f"{MODEL}/sentence_bert_config.json", modality_config={"image": {"method": "forward"}})),
    "remote code of embeddings": ("sentence_transformers", in_json(
        f"{MODEL}/config.json", auto_map={"AutoModel": "evil.Model"})),
    "code of embeddings": ("sentence_transformers", write(f"{MODEL}/evil.py")),
    "pickled embeddings": ("sentence_transformers", pickle_as(f"{MODEL}/pytorch_model.bin")),
}  # fmt: skip
OTHERS: dict[str, tuple[str, Edit]] = {
    "LightGBM's pickle": ("lightgbm_classifier", both(
        pickle_as("model.skops"), put("lightgbm", serialization_format="cloudpickle"))),
    "LightGBM's pickle by default": ("lightgbm_classifier", lambda folder: settings(
        folder, lambda document: document["flavors"]["lightgbm"].pop("serialization_format"))),
    "LightGBM's class": ("lightgbm", put("lightgbm", model_class="os.system")),
    "LightGBM's pickle as text": ("lightgbm", pickle_as("model.lgb")),
    "CatBoost's class": ("catboost", put("catboost", model_type="Evil")),
    "CatBoost's format": ("catboost", put("catboost", save_format="python")),
    "CatBoost's pickle": ("catboost", pickle_as("model.cb")),
}  # fmt: skip
TRICKS = {**TABULAR, **TEXTS, **OTHERS}
SHORT = [*TABULAR, *TEXTS]


def parameters(names: list[str]) -> list[Any]:
    return [*names, *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS)]


@pytest.mark.parametrize("name", [*(n for n in flavors.SAVERS if n not in flavors.LONG[:3]),
                                  *(pytest.param(n, marks=pytest.mark.long) for n in flavors.LONG[:3])])  # fmt: skip
def test_a_model_of_the_library_alone_needs_no_trust(name: str, models: Callable[[str], Path]) -> None:
    assert why_code(models(name)) is None
    assert not read_model(models(name)).needs_code


@pytest.mark.parametrize("trick", parameters(SHORT))
def test_a_hostile_model_needs_trust_and_runs_nothing(trick: str, copy: Callable[[str], Path], tmp_path: Path) -> None:
    name, edit = TRICKS[trick]
    folder = copy(name)
    assert why_code(folder) is None
    edit(folder)
    assert why_code(folder) is not None
    # a manifest that claims the engine for models without code
    bundle = tmp_path / "bundle"
    shutil.copytree(folder, bundle / "model")
    write_manifest(bundle, Manifest({}, engines=(EngineEntry("flavor", "native"),)))
    if trick != "a link":  # a bundle holds no links, and the copy has the file itself
        with api.open_bundle(bundle, allow_versions=True) as opened, pytest.raises(CodeNotTrusted):
            opened.predict(flavors.data()[0])
    assert not canary(folder).exists()
    assert not canary(bundle / "model").exists()


def test_the_canary_sings_if_the_code_runs(copy: Callable[[str], Path]) -> None:
    folder = copy("sklearn")
    TABULAR["a pickle called skops"][1](folder)
    pickle.loads((folder / "model.skops").read_bytes())  # noqa: S301  made above
    assert canary(folder).exists()


@given(value=st.text(max_size=12) | st.integers() | st.lists(st.text(max_size=3), min_size=1, max_size=2))
@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("python_function", "loader_module"),
        ("python_function", "code"),
        ("python_function", "config"),
        ("python_function", "model_path"),
        ("python_function", "predict_fn"),
        ("sklearn", "code"),
        ("sklearn", "pickled_model"),
        ("sklearn", "serialization_format"),
        ("sklearn", "added"),
    ],
)
def test_any_other_setting_needs_trust(
    section: str, key: str, value: object, models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = models("sklearn")
    document = yaml.safe_load((folder / "MLmodel").read_text())
    before = (folder / "MLmodel").read_bytes()
    if document["flavors"][section].get(key) == value:
        return
    document["flavors"][section][key] = value
    try:
        (folder / "MLmodel").write_text(yaml.safe_dump(document))
        assert why_code(folder) is not None
    finally:
        (folder / "MLmodel").write_bytes(before)


def test_an_author_chooses_versions_of_known_libraries_only() -> None:
    logged = ["scikit-learn==1.9.1", "Sentence_Transformers>=6", "evil==1", "skops @ file:///evil", "-r evil.txt", ""]
    assert FlavorKind().libraries(logged) == ["scikit-learn==1.9.1", "Sentence_Transformers>=6", "skops @ file:///evil"]
    assert FlavorKind().libraries(["scikit-learn==1.9.1", "torch==2.13.0"]) == ["scikit-learn==1.9.1"]
    assert FlavorKind().libraries(["transformers==5", "torch==2"]) == ["transformers==5", "torch==2"]


@pytest.mark.parametrize(
    ("flavor", "expected"),
    [
        ({"python_function": {"loader_module": "mlflow.sklearn"}, "sklearn": {}}, "sklearn"),
        ({"python_function": {"loader_module": "mlflow.sklearn"}}, None),
        ({"python_function": {"loader_module": "mlflow.pyfunc.model"}, "sklearn": {}}, None),
        ({"sklearn": {}}, None),
    ],
)
def test_the_flavor_is_that_of_the_loader(flavor: dict[str, object], expected: str | None) -> None:
    assert flavor_of(flavor) == expected


@pytest.mark.parametrize(
    ("settings", "merged"),
    [
        ({"tokenizer_config.json": {"padding_side": "right"}, "tokenizer.json": {"padding": None}}, True),
        ({"tokenizer_config.json": {"padding_side": "left"}}, False),
        ({"tokenizer.json": {"padding": {"direction": "Left"}}}, False),
        ({"tokenizer.json": ["unreadable"]}, False),
    ],
)
def test_embeddings_of_texts_that_are_padded_on_the_left_are_not_merged(
    tmp_path: Path, settings: dict[str, object], merged: bool
) -> None:
    """Padding on the left moves a text's positions, so its embedding depends on the longest text of the batch."""
    signature = {"inputs": json.dumps([{"type": "string"}]), "outputs": None, "params": None}
    loader = {"loader_module": "mlflow.sentence_transformers", "env": "conda.yaml", "python_version": "3.11"}
    document = {"flavors": {"python_function": loader, "sentence_transformers": {}}, "signature": signature}
    (tmp_path / "MLmodel").write_text(yaml.safe_dump(document))
    data = tmp_path / "model.sentence_transformer"
    data.mkdir()
    for name, value in settings.items():
        (data / name).write_text(json.dumps(value))
    assert read_model(tmp_path).rows_independent() is merged
