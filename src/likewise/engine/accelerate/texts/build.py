"""Describes a loaded model of transformers or sentence-transformers for the engine that needs neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from likewise.core.errors import EngineUnavailable, LikewiseError
from likewise.core.extras import need
from likewise.core.signature import Signature
from likewise.engine.accelerate.convert import SENTENCE
from likewise.engine.accelerate.form import MASK, TENSOR, Call
from likewise.engine.accelerate.forward import Recorder
from likewise.engine.accelerate.texts.engine import PAIR, Encoding, Tokens
from likewise.engine.accelerate.texts.model import Classifier, Encoder, TextModel
from likewise.engine.text.compiled import TOKENIZER

UNLIMITED = 1 << 20  # tokens: transformers has a very large number for a tokenizer without a limit
REMEDY = "its compiled modules run in transformers"
ODD = (
    *("", " ", "  spaces around  ", "tabs\tand\nlines\r\n", "UPPER lower", "naïve café, e\u0301", "\u200b\ufeff\x00"),
    *(
        "日本語 русский العربية",
        "👩\u200d👩\u200d👧",
        "[CLS] [SEP] [MASK] <s> </s> <mask> [PAD]",
        "don't; 3.14 -1e9 $5",
    ),
    *("word " * 3000, "x" * 3000),
)
"""Texts that tokenizers treat in special ways."""


@dataclass(frozen=True)
class Whole:
    """What `convert_module` needs of a module that was recorded through its encoder."""

    name: str
    module: Any
    original: Callable[..., Any]
    calls: Sequence[Call]
    refused: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Described:
    """A text model, its tokenizer (the JSON of `tokenizers`), and what to convert.

    encode: the arrays that its library computes for a text or a pair.
    """

    model: TextModel
    tokenizer: str
    recorded: Recorder | Whole
    encode: Callable[[Any], Mapping[str, Any]]

    def write(self, folder: Path) -> None:
        """Write `text.json` and `tokenizer.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TOKENIZER).write_text(self.tokenizer, encoding="utf-8")
        self.model.write(folder)


def describe(loaded: Any, recorders: Sequence[Recorder], signature: Signature) -> Described:
    """The text model for the `mlflow.pyfunc.PyFuncModel` `loaded`.

    Raises EngineUnavailable if it is another kind of model, or has options that the engine does not know.
    """
    called = [each for each in recorders if each.name is not None]
    if len(called) != 1:
        raise _unavailable(f"it calls {len(called)} modules")
    inner = loaded._model_impl
    params = {str(each.name): each.raw.get("default") for each in signature.params or ()}
    if hasattr(inner, "pipeline"):
        described = _classifier(inner, called[0], params)
        columns = signature.columns or ("",)
        fits = columns in (("",), PAIR[:1], PAIR)
    else:
        described = _encoder(inner.model, called[0], params)
        fits = True
    kinds = [each.kind for each in signature.inputs or ()]
    if not fits or set(kinds) != {"string"} or (len(kinds) > 1 and signature.columns != PAIR):
        raise _unavailable(f"its signature has the inputs {', '.join(map(str, kinds)) or 'none'}")
    return described


def check_tokens(described: Described, folder: Path, texts: Sequence[str]) -> None:
    """Raise EngineUnavailable unless the tokenizer in `folder` gives the same tokens as the library."""
    tokens = Tokens(folder / TOKENIZER, described.model)
    options = described.model.options(None)
    samples: list[Any] = [*ODD, *texts[:64]]
    if isinstance(described.model, Classifier):
        samples += [dict(zip(PAIR, pair, strict=True)) for pair in zip(ODD, reversed(ODD), strict=True)]
    for sample in samples:
        text = tuple(sample[name] for name in PAIR) if isinstance(sample, dict) else sample
        expected = described.encode(sample)
        found = _as_arrays(tokens([text], options)[0])
        if any(name in found and not np.array_equal(found[name], value) for name, value in expected.items()):
            raise _unavailable(f"its tokenizer gives other tokens for {str(sample)[:50]!r}")


def check_longest(described: Described, longest: int, signature: Signature) -> None:
    """Raise EngineUnavailable if torch accepts texts of more than `longest` tokens that may reach it."""
    truncation = described.model.options(None).truncation
    changeable = {str(each.name) for each in signature.params or ()} & {"truncation", "max_length"}
    if truncation is not None and truncation.tokens <= longest and not changeable:
        return
    torch = need("torch", extra="torch")
    call = described.recorded.calls[0]
    tensors = {name: torch.ones((1, longest + 1), dtype=torch.int64) for name in call.inputs}
    tensors |= {name: tensors[name] * 0 for name in tensors if name == "token_type_ids"}
    try:
        with torch.inference_mode():
            described.recorded.original(**tensors, **call.constants)
    except Exception:  # noqa: BLE001  as it should be
        return
    raise _unavailable(f"it takes texts of more than {longest} tokens")


def _as_arrays(encoding: Encoding) -> dict[str, Any]:
    ids, types = encoding
    return {"input_ids": ids[None], "token_type_ids": types[None], MASK: np.ones_like(ids)[None]}


def _classifier(wrapper: Any, recorder: Recorder, params: Mapping[str, object]) -> Described:
    """Of the pipeline in MLflow's `_TransformersWrapper`.  params: defaults of the signature."""
    pipeline: Any = wrapper.pipeline
    if type(pipeline).__name__ != "TextClassificationPipeline":
        raise _unavailable("it is not a pipeline for text classification")
    if pipeline._preprocess_params or pipeline._forward_params or pipeline._postprocess_params:
        raise _unavailable("its pipeline was created with options")
    config, tokenizer = pipeline.model.config, pipeline.tokenizer
    single = config.num_labels == 1 or config.problem_type == "multi_label_classification"
    function = "none" if config.problem_type == "regression" else "sigmoid" if single else "softmax"
    model = Classifier(
        **_tokenizer_settings(tokenizer),
        defaults={**wrapper.model_config, **params},
        labels=tuple(str(config.id2label[at]) for at in range(config.num_labels)),
        function=function,
    )
    _check_params(model)
    options = {name: value for name, value in model.defaults.items() if name in ("truncation", "max_length", "padding")}
    return Described(
        model,
        _json(tokenizer),
        recorder,
        lambda text: {name: each.numpy() for name, each in pipeline.preprocess(text, **options).items()},
    )


def _encoder(sentences: Any, recorder: Recorder, params: Mapping[str, object]) -> Described:
    """Of a `SentenceTransformer`.  params: defaults of the signature."""
    tokenizer = sentences.tokenizer
    if (lower := getattr(sentences[0], "do_lower_case", False)) or sentences[0].max_seq_length is None:
        raise _unavailable("it changes texts to lower case" if lower else "it has no limit of tokens")
    prompts = {str(name): str(text) for name, text in sentences.prompts.items()}
    if any(not getattr(each, "include_prompt", True) for each in sentences) and (
        any(prompts.values()) or "prompt" in params
    ):
        raise _unavailable("it leaves prompts out of its vectors")
    default = sentences.default_prompt_name
    settings = {**_tokenizer_settings(tokenizer), "max_tokens": int(sentences[0].max_seq_length)}
    model = Encoder(
        **settings,
        defaults=dict(params),
        prompts=prompts,
        prompt=prompts.get(default, "") if default is not None else "",
        dimensions=sentences.truncate_dim,
    )

    def encode(text: str) -> Mapping[str, Any]:
        found = sentences.preprocess([model.options(None).prompt + text])
        return {name: found[name].numpy() for name in ("input_ids", "token_type_ids", MASK) if name in found}

    _check_params(model)
    return Described(model, _json(tokenizer), _whole(sentences, recorder), encode)


def _whole(sentences: Any, recorder: Recorder) -> Whole:
    """All modules of a `SentenceTransformer` as one, with the calls of the first."""
    torch = need("torch", extra="torch")

    class SentenceEncoder(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = sentences
            self.config = recorder.module.config

        def get_input_embeddings(self) -> Any:
            return recorder.module.get_input_embeddings()

        def forward(self, **features: Any) -> Any:
            for each in sentences:
                features = each(features)
            return features[SENTENCE]

    module = SentenceEncoder().eval()
    calls = []
    for call in recorder.calls:
        with torch.inference_mode():
            vectors = module(**{name: torch.from_numpy(value) for name, value in call.inputs.items()})
        calls.append(Call(call.inputs, {}, TENSOR, {SENTENCE: vectors.numpy()}))
    return Whole(str(recorder.name), module, module.forward, calls, recorder.refused)


def _tokenizer_settings(tokenizer: Any) -> dict[str, Any]:
    if not getattr(tokenizer, "is_fast", False):
        raise _unavailable("its tokenizer is not one of `tokenizers`")
    limit = tokenizer.model_max_length
    return {
        "max_tokens": int(limit) if limit <= UNLIMITED else None,
        "side": str(tokenizer.truncation_side),
    }


def _check_params(model: TextModel) -> None:
    try:
        model.options(None)
    except LikewiseError as error:
        raise _unavailable(error.cause) from error


def _json(tokenizer: Any) -> str:
    text: str = tokenizer.backend_tokenizer.to_str()
    return text


def _unavailable(why: str) -> EngineUnavailable:
    return EngineUnavailable(why, remedy=REMEDY)
