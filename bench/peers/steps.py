"""The demo's four steps implemented with transformers: cache, language detection, classification, JSON response."""
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

MAX_TOKENS = 256
CACHE_SIZE = 100


class Steps:
    """A classifier with its tokenizer, a language detector, and a cache of recent responses."""

    def __init__(self, classifier: str, name: str) -> None:
        """classifier: a Hugging Face folder; name: the pipeline's name in responses."""
        import py3langid
        from cachetools import LRUCache
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._languages: Any = py3langid
        self._tokenizer: Any = AutoTokenizer.from_pretrained(classifier)
        self._model: Any = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
        self._cache: Any = LRUCache(CACHE_SIZE)
        self._uris = {"finetuned_model_uri": classifier, "inference_pipeline_model_uri": name}

    def predict(self, texts: Sequence[str]) -> list[str]:
        """One response per text, in order; texts that are not cached are classified in one forward pass."""
        known = {text: self._cache[text] for text in texts if text in self._cache}
        if missing := [text for text in dict.fromkeys(texts) if text not in known]:
            fresh = dict(zip(missing, map(self._respond, missing, self._labels(missing)), strict=True))
            self._cache.update(fresh)
            known |= fresh
        return [known[text] for text in texts]

    def _labels(self, texts: list[str]) -> list[str]:
        import torch

        inputs = self._tokenizer(texts, truncation=True, max_length=MAX_TOKENS, padding=True, return_tensors="pt")
        with torch.inference_mode():
            numbers = self._model(**inputs).logits.argmax(-1).tolist()
        return [self._model.config.id2label[number] for number in numbers]

    def _respond(self, text: str, label: str) -> str:
        language, _ = self._languages.classify(text)
        response = {
            "response": {"prediction_label": [label]},
            "metadata": {"language_detected": language},
            "model_metadata": self._uris,
        }
        return json.dumps(response)
