"""Small models of MLflow's own flavours, trained in a moment from fixed seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

SKOPS: dict[str, Any] = {"serialization_format": "skops", "skops_trusted_types": ["numpy.dtype"]}
NO_REQUIREMENTS: dict[str, Any] = {"pip_requirements": ["mlflow"]}


def data() -> tuple[pd.DataFrame, np.ndarray]:
    """Two columns of numbers, of which `a` may be missing, and one of integers; two classes."""
    random = np.random.default_rng(1)
    frame = pd.DataFrame({"a": random.normal(size=120), "b": random.normal(size=120), "n": random.integers(0, 9, 120)})
    labels = (frame["a"] + frame["b"] * 0.5 + frame["n"] * 0.1 > 0.4).astype(int).to_numpy()
    frame.loc[::7, "a"] = np.nan
    return frame, labels


def signature() -> ModelSignature:
    kinds = [ColSpec("double", "a", required=False), ColSpec("double", "b"), ColSpec("long", "n")]
    return ModelSignature(Schema(kinds), Schema([ColSpec("double")]))


def save(flavor: Any, model: Any, folder: Path, **options: Any) -> Path:
    """Save `model` in `folder` with the signature and an example of `data`."""
    example, _ = data()
    common = {"signature": signature(), "input_example": example[:5], **NO_REQUIREMENTS, **options}
    flavor.save_model(model, folder, **common)
    return folder


def sklearn(folder: Path, **options: Any) -> Path:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(*data())
    return save(mlflow.sklearn, model, folder, **{**SKOPS, **options})


def probabilities(folder: Path) -> Path:
    return sklearn(folder, pyfunc_predict_fn="predict_proba")


def pickled(folder: Path) -> Path:
    return sklearn(folder, serialization_format="cloudpickle")


def xgboost(folder: Path) -> Path:
    import xgboost

    frame, labels = data()
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(frame, labels), 5)
    return save(mlflow.xgboost, booster, folder)


def xgboost_classifier(folder: Path) -> Path:
    import xgboost

    return save(mlflow.xgboost, xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(*data()), folder)


def lightgbm(folder: Path) -> Path:
    module: Any = pytest.importorskip("lightgbm")
    frame, labels = data()
    options = {"objective": "binary", "verbose": -1, "num_threads": 1}
    return save(mlflow.lightgbm, module.train(options, module.Dataset(frame, labels), 5), folder)


def lightgbm_classifier(folder: Path) -> Path:
    module: Any = pytest.importorskip("lightgbm")
    return save(mlflow.lightgbm, module.LGBMClassifier(n_estimators=5, verbose=-1).fit(*data()), folder)


def catboost(folder: Path) -> Path:
    module: Any = pytest.importorskip("catboost")
    model = module.CatBoostClassifier(iterations=5, verbose=0, allow_writing_files=False, thread_count=1)
    return save(mlflow.catboost, model.fit(*data()), folder)


def transformers(folder: Path) -> Path:
    """A classifier of texts, with random weights."""
    import transformers as library

    from likewise.testing.classifier import make_classifier

    checkpoint = str(make_classifier(folder.with_name(f"{folder.name}-checkpoint")))
    model = library.AutoModelForSequenceClassification.from_pretrained(checkpoint)
    tokenizer = library.AutoTokenizer.from_pretrained(checkpoint)
    pipeline = library.pipeline("text-classification", model=model, tokenizer=tokenizer)
    texts = ["a good film", "bad", "not so bad after all"]
    mlflow.transformers.save_model(pipeline, folder, input_example=texts, **NO_REQUIREMENTS)
    return folder


def sentence_transformers(folder: Path) -> Path:
    """A model of embeddings, with random weights."""
    import sentence_transformers as library
    from sentence_transformers.base.modules.normalize import Normalize
    from sentence_transformers.base.modules.transformer import Transformer
    from sentence_transformers.sentence_transformer.modules.pooling import Pooling

    from likewise.testing.classifier import make_classifier

    checkpoint = str(make_classifier(folder.with_name(f"{folder.name}-checkpoint")))
    modules = [Transformer(checkpoint), Pooling(32), Normalize()]
    model = library.SentenceTransformer(modules=modules)
    mlflow.sentence_transformers.save_model(model, folder, input_example=["a good film", "bad"], **NO_REQUIREMENTS)
    return folder


SAVERS: dict[str, Callable[..., Path]] = {
    each.__name__: each
    for each in (
        sklearn, probabilities, xgboost, xgboost_classifier, lightgbm, lightgbm_classifier, catboost, transformers,
        sentence_transformers,
    )
}  # fmt: skip
LONG = ("lightgbm", "lightgbm_classifier", "catboost", "transformers", "sentence_transformers")
TEXTS = ("transformers", "sentence_transformers")
