"""The zoo's models of tables and arrays: scikit-learn, XGBoost, LightGBM, CatBoost, statsmodels, ONNX, Keras, torch."""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tests.models.logged import SEED, Logged, log

NUMBERS = pd.DataFrame(np.random.default_rng(SEED).normal(size=(200, 4)), columns=["age", "height", "weight", "dose"])
LABELS = (NUMBERS["age"] + 0.5 * NUMBERS["height"] > 0).astype(int)
ARRAY = NUMBERS.to_numpy(dtype="float32")
ROWS, ARRAY_ROWS = NUMBERS.head(5), ARRAY[:5]
REVIEWS = pd.DataFrame(
    {"text": ["a fine film", "a dull film", "what a fine story", "such a dull story", "fine, not dull"]}
)


def _sklearn(model: Any, data: Any, output: Any, **options: Any) -> Logged:
    return log(mlflow.sklearn, model, data, output, requires=["scikit-learn", "pandas"], **options)


def sklearn_classifier() -> Logged:
    model = LogisticRegression().fit(NUMBERS, LABELS)
    return _sklearn(model, ROWS, model.predict(ROWS))


def sklearn_probabilities() -> Logged:
    model = LogisticRegression().fit(NUMBERS, LABELS)
    return _sklearn(model, ROWS, model.predict_proba(ROWS), pyfunc_predict_fn="predict_proba")


def sklearn_text() -> Logged:
    words = ColumnTransformer([("words", TfidfVectorizer(), "text")])
    model = make_pipeline(words, LogisticRegression()).fit(REVIEWS, [1, 0, 1, 0, 1])
    return _sklearn(model, REVIEWS, model.predict(REVIEWS), serialization_format="cloudpickle")


def sklearn_array() -> Logged:
    model = LogisticRegression().fit(ARRAY, LABELS)
    return _sklearn(model, ARRAY_ROWS, model.predict(ARRAY_ROWS))


def sklearn_sparse() -> Logged:
    model = LogisticRegression().fit(csr_matrix(ARRAY), LABELS)
    logged = _sklearn(model, csr_matrix(ARRAY_ROWS), model.predict(ARRAY_ROWS))
    return Logged(logged.uri, ARRAY_ROWS)


def sklearn_unsigned() -> Logged:
    model = LogisticRegression().fit(NUMBERS, LABELS)
    return _sklearn(model, ROWS, None, signed=False)


def sklearn_numbered_columns() -> Logged:
    frame = pd.DataFrame(NUMBERS.to_numpy())
    model = LogisticRegression().fit(frame, LABELS)
    return _sklearn(model, frame.head(5), model.predict(frame.head(5)))


def xgboost_classifier() -> Logged:
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=5, max_depth=3, random_state=SEED).fit(NUMBERS, LABELS)
    return log(mlflow.xgboost, model, ROWS, model.predict(ROWS), requires=["xgboost-cpu", "scikit-learn", "pandas"])


def xgboost_booster() -> Logged:
    import xgboost

    options = {"max_depth": 3, "objective": "binary:logistic", "seed": SEED}
    model = xgboost.train(options, xgboost.DMatrix(NUMBERS, label=LABELS), 5)
    return log(mlflow.xgboost, model, ROWS, model.predict(xgboost.DMatrix(ROWS)), requires=["xgboost-cpu", "pandas"])


def lightgbm_booster() -> Logged:
    import lightgbm

    options = {"objective": "binary", "num_leaves": 4, "seed": SEED, "verbose": -1}
    model = lightgbm.train(options, lightgbm.Dataset(NUMBERS, LABELS), 5)
    return log(mlflow.lightgbm, model, ROWS, model.predict(ROWS), requires=["lightgbm", "pandas"])


def catboost_classifier() -> Logged:
    import catboost

    options = {"iterations": 5, "depth": 3, "random_seed": SEED, "verbose": False, "allow_writing_files": False}
    model = catboost.CatBoostClassifier(**options).fit(NUMBERS, LABELS)
    return log(mlflow.catboost, model, ROWS, model.predict(ROWS), requires=["catboost", "pandas"])


def statsmodels_ols() -> Logged:
    import statsmodels.api

    model = statsmodels.api.OLS(LABELS.astype(float), NUMBERS).fit()
    return log(mlflow.statsmodels, model, ROWS, model.predict(ROWS), requires=["statsmodels", "pandas"])


def _converted() -> Any:
    from skl2onnx import to_onnx

    return to_onnx(LogisticRegression().fit(ARRAY, LABELS), ARRAY[:1], options={"zipmap": False})


def onnx_sklearn() -> Logged:
    output = {"label": np.array([0, 1]), "probabilities": ARRAY[:2, :2]}
    return log(mlflow.onnx, _converted(), {"X": ARRAY_ROWS}, output, requires=["onnx", "onnxruntime"])


def onnx_sklearn_unsigned() -> Logged:
    return log(mlflow.onnx, _converted(), {"X": ARRAY_ROWS}, requires=["onnx", "onnxruntime"], signed=False)


def keras_classifier() -> Logged:
    import keras

    keras.utils.set_random_seed(SEED)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")])
    model.compile(loss="sparse_categorical_crossentropy")
    model.fit(ARRAY, LABELS.to_numpy(), epochs=1, verbose=0)
    output = model.predict(ARRAY_ROWS, verbose=0)
    return log(mlflow.keras, model, ARRAY_ROWS, output, requires=["keras", "torch"], example=False)  # MLflow's fails


def _torch(model: Any, data: Any) -> Logged:
    import torch

    with torch.no_grad():
        output = model(torch.from_numpy(data)).numpy()
    return log(mlflow.pytorch, model, data, output, requires=["torch"])


def torch_tabular() -> Logged:
    import torch

    torch.manual_seed(SEED)
    return _torch(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval(), ARRAY_ROWS)


def torch_images() -> Logged:
    import torch

    torch.manual_seed(SEED)
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    images = np.random.default_rng(SEED).normal(size=(3, 3, 8, 8)).astype("float32")
    return _torch(torch.nn.Sequential(*layers, torch.nn.Linear(4, 2)).eval(), images)
