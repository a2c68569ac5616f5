"""The zoo's models of texts: tiny random networks with all-MiniLM's tokenizer, some with a briefly trained head."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from tests.models.logged import SEED, Logged, log
from tests.support.encoders import REVIEWS, classifier, network, tokenizer

REQUIRES = ("torch", "transformers", "pandas")


def _transformers(task: str, model: Any, data: Any, output: Any, **options: Any) -> Logged:
    import transformers

    pipeline = transformers.pipeline(task, model=model, tokenizer=tokenizer())
    return log(mlflow.transformers, pipeline, data, output, requires=REQUIRES, **options)


def transformers_text_classification() -> Logged:
    output = pd.DataFrame({"label": ["positive"], "score": [0.9]})
    return _transformers("text-classification", classifier(), REVIEWS["text"].tolist(), output)


def transformers_token_classification() -> Logged:
    return _transformers("token-classification", network("BertForTokenClassification"), REVIEWS["text"].tolist(), ["O"])


def transformers_feature_extraction() -> Logged:
    return _transformers("feature-extraction", network("BertModel"), REVIEWS["text"].tolist(), np.zeros((1, 32)))


def transformers_fill_mask() -> Logged:
    return _transformers("fill-mask", network("BertForMaskedLM"), ["a [MASK] film", "a dull [MASK]"], ["film"])


def transformers_text_generation() -> Logged:
    import torch
    import transformers

    torch.manual_seed(SEED)
    words = tokenizer()
    config = transformers.GPT2Config(
        vocab_size=len(words), n_embd=32, n_layer=1, n_head=2, n_positions=128,
        bos_token_id=words.cls_token_id, eos_token_id=words.sep_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    options = {"model_config": {"max_new_tokens": 5, "do_sample": False}}
    return _transformers("text-generation", model, REVIEWS["text"].tolist(), ["a film"], **options)


def transformers_zero_shot() -> Logged:
    names = {"id2label": {0: "contradiction", 1: "entailment"}, "label2id": {"contradiction": 0, "entailment": 1}}
    model = network("BertForSequenceClassification", num_labels=2, **names)
    labels = json.dumps(["film", "book"])
    data = {"sequences": "a fine film", "candidate_labels": labels, "hypothesis_template": "This is a {}."}
    output = pd.DataFrame({"sequence": ["a"], "labels": ["film"], "scores": [0.5]})
    return _transformers("zero-shot-classification", model, data, output)


def _sentences() -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    with tempfile.TemporaryDirectory() as folder:
        network("BertModel").save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        return SentenceTransformer(modules=[Transformer(folder), Pooling(32)], device="cpu")


def sentence_transformers_signed() -> Logged:
    model, texts = _sentences(), REVIEWS["text"].tolist()
    options = {"requires": ["sentence-transformers", *REQUIRES]}
    return log(mlflow.sentence_transformers, model, texts, model.encode(texts), **options)


def sentence_transformers_unsigned() -> Logged:
    options = {"requires": ["sentence-transformers", *REQUIRES], "signed": False, "example": False}
    return log(mlflow.sentence_transformers, _sentences(), REVIEWS["text"].tolist(), **options)


def _onnx(*, signed: bool) -> Logged:
    import onnx
    import torch

    class Logits(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    model = classifier()
    model.set_attn_implementation("eager")
    batch = tokenizer()(REVIEWS["text"].tolist(), return_tensors="np", padding=True)
    arrays = {name: batch[name].astype("int64") for name in ("input_ids", "attention_mask")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        torch.onnx.export(
            Logits(model).eval(),
            tuple(torch.from_numpy(each) for each in arrays.values()),
            str(path),
            input_names=list(arrays),
            output_names=["logits"],
            dynamic_axes={**{name: {0: "rows", 1: "tokens"} for name in arrays}, "logits": {0: "rows"}},
            dynamo=False,
        )
        graph = onnx.load(path)
    output = {"logits": np.zeros((3, 2), "float32")}
    return log(mlflow.onnx, graph, arrays, output, requires=["onnx", "onnxruntime"], signed=signed)


def onnx_text() -> Logged:
    return _onnx(signed=True)


def onnx_text_unsigned() -> Logged:
    return _onnx(signed=False)
