"""Decides from a model's files whether loading and calling it can run code that came with it.

MLflow's loaders import and unpickle what the model's own files name.  Each flavour has a rule here that lists
everything that its loader reads: the settings in `MLmodel` with the only values that are accepted, the only files that
the folder may contain, and a check of their contents.  What no rule accepts counts as code, so a setting or a file that
a later version of a library invents needs trust until a rule describes it.  Read with MLflow 3.17.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from likewise.core.errors import LikewiseError
from likewise.core.extras import need
from likewise.core.lazy_imports import deferred
from likewise.engine.checkpoints import sentence_transformers_problem, transformers_problem

MLMODEL = "MLmodel"
PYFUNC = "python_function"
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # the name of a file in the model's own folder
ANYWHERE = frozenset({
    MLMODEL, "requirements.txt", "conda.yaml", "python_env.yaml", "registered_model_meta", "input_example.json",
    "serving_input_example.json", "README.md", "LICENSE.txt", "model_card.md", "model_card_data.yaml",
    "uv.lock", "pyproject.toml", ".python-version",
})  # fmt: skip
SKOPS_TYPES = ("numpy.dtype", "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
               "sklearn.neural_network._stochastic_optimizers.SGDOptimizer")  # fmt: skip
LIGHTGBM_TYPES = ("collections.OrderedDict", "lightgbm.basic.Booster",
                  *(f"lightgbm.sklearn.LGBM{kind}" for kind in ("Classifier", "Regressor", "Ranker")))  # fmt: skip
XGBOOST_CLASSES = ("xgboost.core.Booster",
                   *(f"xgboost.sklearn.XGB{kind}" for kind in ("Classifier", "Regressor", "Ranker", "Model",
                                                               "RFClassifier", "RFRegressor")))  # fmt: skip

Accepts = Callable[[object], bool]
Settings = Mapping[str, Any]


def one_of(*values: object) -> Accepts:
    """Accepts these values only; None also stands for a missing setting."""
    return lambda value: any(type(value) is type(each) and value == each for each in values)


def text(value: object) -> bool:
    """Accepts a version or a description, which no loader follows."""
    return value is None or isinstance(value, str | int | float)


def file_name(value: object) -> bool:
    """Accepts the name of a file that is directly in the model's folder."""
    return isinstance(value, str) and PLAIN.fullmatch(value) is not None


def anything(value: object) -> bool:  # noqa: ARG001  the same for all
    """Accepts what no loader reads in this form of the model."""
    return True


@dataclass(frozen=True)
class Rule:
    """What MLflow's loader of one flavour reads.

    pyfunc, flavor: the accepted settings of the two sections of `MLmodel`, in addition to those of every model.
    problem: checks the files that are not in `ANYWHERE`; returns why they may run code, or None.
    """

    flavor: Mapping[str, Accepts]
    problem: Callable[[Path, Settings, frozenset[str]], str | None]
    pyfunc: Mapping[str, Accepts]


def _one_file(name: str, also: Collection[str] = ()) -> Callable[[frozenset[str]], str | None]:
    def check(files: frozenset[str]) -> str | None:
        if name not in files:
            return f"the file {name} is missing"
        other = sorted(files - {name, *also})
        return f"it contains {other[0]}, which the flavor does not write" if other else None

    return check


def _starts(path: Path, start: bytes) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(start)) == start


def _sklearn(folder: Path, conf: Settings, files: frozenset[str]) -> str | None:
    name = conf["pickled_model"]
    if conf.get("serialization_format") != "skops":
        return f"{name} is a pickle; serialization_format='skops' logs it without"
    return _one_file(name)(files) or _skops(folder / name, SKOPS_TYPES)


def _skops(path: Path, known: Collection[str]) -> str | None:
    """The types that the file itself contains count; `skops_trusted_types` in `MLmodel` is a claim of its author."""
    try:
        with deferred("sklearn.externals.array_api_compat.torch"):  # skops imports all of scikit-learn, and this torch
            skops = need("skops.io", extra="mlflow")
    except LikewiseError:
        return f"{path.name} can only be checked with skops, which is not installed: pip install skops"
    try:
        unknown = [name for name in skops.get_untrusted_types(file=path) if name not in known]
    except Exception as error:  # noqa: BLE001  the file may contain anything
        return f"{path.name} is not a readable skops file: {type(error).__name__}: {str(error)[:100]}"
    return f"{path.name} contains the type {unknown[0]}, which is not among those known to be safe" if unknown else None


def _xgboost(folder: Path, conf: Settings, files: frozenset[str]) -> str | None:
    name = conf["data"]
    if (problem := _one_file(name)(files)) is not None:
        return problem
    return None if _starts(folder / name, b"{") else f"{name} is neither UBJSON nor JSON"


def _lightgbm(folder: Path, conf: Settings, files: frozenset[str]) -> str | None:
    name = conf["data"]
    if (problem := _one_file(name)(files)) is not None:
        return problem
    if conf.get("model_class", LIGHTGBM_TYPES[1]) == LIGHTGBM_TYPES[1]:
        return None if _starts(folder / name, b"tree") else f"{name} is not LightGBM's text format"
    if conf.get("serialization_format") != "skops":
        return f"{name} is a pickle; serialization_format='skops' logs it without"
    return _skops(folder / name, (*LIGHTGBM_TYPES, *SKOPS_TYPES))


def _catboost(folder: Path, conf: Settings, files: frozenset[str]) -> str | None:
    name, start = conf["data"], b"{" if conf["save_format"] == "json" else b"CBM1"
    if (problem := _one_file(name)(files)) is not None:
        return problem
    return None if _starts(folder / name, start) else f"{name} is not in CatBoost's format {conf['save_format']}"


def _without_params(check: Callable[[Path, Settings, frozenset[str]], str | None], allowed: Collection[str]) -> Any:
    """The rule of a library whose `predict` takes options that may load code."""

    def problem(folder: Path, conf: Settings, files: frozenset[str]) -> str | None:
        document = _mlmodel(folder)
        declared = (document.get("signature") or {}).get("params")
        names = [each.get("name") for each in json.loads(declared)] if declared else []
        if unknown := [name for name in names if name not in allowed]:
            return f"it passes the param {unknown[0]!r} to its library"
        if (document.get("metadata") or {}).get("prompt_template"):
            return "it has a prompt template"
        return check(folder, conf, files)

    return problem


_DATA = {"data": file_name}
_PREDICT = {"predict_fn": one_of(None, "predict", "predict_proba", "predict_log_proba", "predict_joint_log_proba")}
_PIPELINE = (
    *("top_k", "return_all_scores", "function_to_apply", "truncation", "padding", "max_length", "batch_size"),
    *("aggregation_strategy", "stride", "candidate_labels", "hypothesis_template", "multi_label", "targets"),
    *("doc_stride", "max_answer_len", "max_seq_len", "max_question_len", "handle_impossible_answer", "align_to_words"),
)
_ENCODE = (
    "batch_size",
    "normalize_embeddings",
    "show_progress_bar",
    "truncate_dim",
    "precision",
    "prompt",
    "prompt_name",
)


def _pipeline_options(value: object) -> bool:
    """Accepts a `model_config` of options that are also accepted as params."""
    return value is None or (
        isinstance(value, Mapping) and value.keys() <= {*_PIPELINE} and all(map(text, value.values()))
    )


RULES: Mapping[str, Rule] = {
    "sklearn": Rule(
        {"pickled_model": file_name, "serialization_format": text, "sklearn_version": text,
         "skops_trusted_types": anything},
        _sklearn,
        {"model_path": file_name, **_PREDICT},
    ),
    "xgboost": Rule(
        {**_DATA, "model_class": one_of(None, *XGBOOST_CLASSES), "model_format": one_of(None, "ubj", "json"),
         "xgb_version": text},
        _xgboost,
        {**_DATA, **_PREDICT},
    ),
    "lightgbm": Rule(
        {**_DATA, "model_class": one_of(None, *LIGHTGBM_TYPES[1:]), "lgb_version": text,
         "serialization_format": text, "skops_trusted_types": anything},
        _lightgbm,
        _DATA,
    ),
    "catboost": Rule(
        {**_DATA, "save_format": one_of("cbm", "json"), "catboost_version": text,
         "model_type": one_of("CatBoost", "CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker")},
        _catboost,
        _DATA,
    ),
    "transformers": Rule(
        {"components": lambda value: value == ["tokenizer"], "instance_type": text, "model_binary": one_of("model"),
         "pipeline_model_type": text, "source_model_name": text, "task": text, "tokenizer_type": text,
         "tokenizer_name": text, "transformers_version": text, "framework": one_of(None, "pt"),
         "torch_dtype": one_of(None, "torch.float32", "torch.float16", "torch.bfloat16")},
        _without_params(transformers_problem, _PIPELINE),
        {"config": _pipeline_options},
    ),
    "sentence_transformers": Rule(
        {"pipeline_model_type": text, "source_model_name": text, "sentence_transformers_version": text},
        _without_params(sentence_transformers_problem, _ENCODE),
        {"data": one_of("model.sentence_transformer")},
    ),
}  # fmt: skip
EVERY_PYFUNC: Mapping[str, Accepts] = {
    "loader_module": text, "python_version": text, "code": one_of(None), "config": one_of(None, {}),
    "streamable": one_of(None, False), "model_code_path": one_of(None),
    "env": lambda value: file_name(value) or (isinstance(value, dict) and all(map(file_name, value.values()))),
}  # fmt: skip


def why_code(folder: Path) -> str | None:
    """Why loading the MLflow model in `folder` may run code that it contains; None if a rule excludes that.

    Reads the files; neither imports nor unpickles anything of the model.
    """
    try:
        return _why(folder)
    except Exception as error:  # noqa: BLE001  the files may contain anything, and what cannot be read is not accepted
        return f"its files cannot be read: {type(error).__name__}: {str(error)[:200]}"


def known_why_code(folder: Path) -> str | None:
    """`why_code` of a folder that does not change, checked once per process: only for decisions before it is loaded."""
    path = folder / MLMODEL
    return _cached(str(folder.absolute()), path.stat().st_mtime_ns if path.is_file() else 0)


@cache
def _cached(folder: str, changed: int) -> str | None:  # noqa: ARG001  part of the key
    return why_code(Path(folder))


def flavor_of(flavors: Mapping[str, object]) -> str | None:
    """The flavour whose own loader `python_function` names, or None for a hand-written pyfunc and other loaders."""
    pyfunc = flavors.get(PYFUNC)
    loader = pyfunc.get("loader_module") if isinstance(pyfunc, Mapping) else None
    return next((name for name in RULES if loader == f"mlflow.{name}" and name in flavors), None)


def handwritten(loader: object) -> bool:
    """Whether the loader is that of MLflow for Python classes and functions of the user."""
    return isinstance(loader, str) and loader.startswith("mlflow.pyfunc.")


def _mlmodel(folder: Path) -> Settings:
    document = need("yaml", extra="mlflow").safe_load((folder / MLMODEL).read_bytes())
    if not isinstance(document, dict) or not isinstance(document.get("flavors"), dict):
        raise ValueError(f"{MLMODEL} has no flavors")
    return document


def _why(folder: Path) -> str | None:
    document = _mlmodel(folder)
    flavors = document["flavors"]
    if (name := flavor_of(flavors)) is None:
        loader = (flavors.get(PYFUNC) or {}).get("loader_module")
        if handwritten(loader):
            return "it is a hand-written pyfunc"
        return f"it is loaded by {loader}, for which Likewise knows no form without code"
    rule = RULES[name]
    if extra := sorted(map(str, flavors.keys() - {PYFUNC, name})):
        return f"it has the flavor {extra[0]} in addition to {name}"
    pyfunc, conf = flavors[PYFUNC], flavors[name]
    problem = _settings(PYFUNC, pyfunc, {**EVERY_PYFUNC, **rule.pyfunc})
    problem = problem or _settings(name, conf, {"code": one_of(None), **rule.flavor}) or _document(document)
    if problem is not None:
        return problem
    if name != "sentence_transformers" and len({pyfunc.get("data"), conf.get("data")}) > 1:
        return "python_function and its flavor name different files"
    if name == "sklearn" and pyfunc.get("model_path") != conf["pickled_model"]:
        return "python_function and its flavor name different files"
    files = frozenset(_files(folder))
    if not (folder / MLMODEL).is_file():
        return f"it has no {MLMODEL}"
    return rule.problem(folder, conf, files - ANYWHERE)


def _settings(section: str, settings: Settings, accepted: Mapping[str, Accepts]) -> str | None:
    for key, value in settings.items():
        if key not in accepted or not accepted[key](value):
            return f"{MLMODEL} sets {section}.{key} to {value!r:.100}"
    missing = [key for key, accepts in accepted.items() if key not in settings and not accepts(None)]
    required = [key for key in missing if key != "env"]
    return f"{MLMODEL} does not set {section}.{required[0]}" if required else None


def _document(document: Settings) -> str | None:
    for key in ("is_signature_from_type_hint", "type_hint_from_example"):
        if document.get(key):
            return f"{MLMODEL} sets {key}, with which MLflow reads the model's own types"
    example = document.get("saved_input_example_info") or {}
    paths = (example.get("artifact_path"), example.get("serving_input_path"))
    return None if all(path is None or file_name(path) for path in paths) else "its input example is elsewhere"


def _files(folder: Path) -> list[str]:
    """All files below `folder`; raises ValueError for a link or anything else that is not a regular file."""
    names = []
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path.relative_to(folder)} is not a regular file")
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
    return names
