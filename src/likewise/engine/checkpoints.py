"""Which checkpoints of transformers and sentence-transformers hold no code: safetensors and a tokenizer as JSON.

Both libraries import classes, templates and kernels that their settings name.  Accepted are encoders of a few
widespread architectures, whose settings are numbers and the few texts listed here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from likewise.engine.text.checkpoint import EXTERNAL, INDEX

ARCHITECTURES = {
    "albert": "Albert", "bert": "Bert", "camembert": "Camembert", "deberta-v2": "DebertaV2", "distilbert": "DistilBert",
    "electra": "Electra", "mpnet": "MPNet", "roberta": "Roberta", "xlm-roberta": "XLMRoberta",
}  # fmt: skip
HEADS = r"(?:Model|For(?:SequenceClassification|TokenClassification|QuestionAnswering|MaskedLM|PreTraining))"
TASKS = frozenset({
    "text-classification", "sentiment-analysis", "token-classification", "ner", "fill-mask", "feature-extraction",
    "question-answering", "zero-shot-classification",
})  # fmt: skip
SHARD = re.compile(r"model(?:-\d{5}-of-\d{5})?\.safetensors")
TOKENIZER = frozenset({
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt",
})  # fmt: skip
TEXTS = frozenset({
    "architectures", "model_type", "hidden_act", "activation", "summary_activation", "position_embedding_type",
    "pos_att_type", "dtype", "torch_dtype", "transformers_version", "problem_type", "_name_or_path", "id2label",
    "label2id",    "pooler_hidden_act", "summary_type", "finetuning_task",
    # of a tokenizer
    "backend", "padding_side", "truncation_side", "truncation_strategy", "tokenizer_class", "name_or_path", "content",
    "additional_special_tokens", "model_input_names", "extra_special_tokens",
    *(f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")),
})  # fmt: skip
CODE = (*EXTERNAL, "trust_remote_code", "custom_pipelines", "custom_generate", "use_kernels", "chat_template")
DTYPES = ("float16", "bfloat16", "float32", "float64")
_MODULES = {
    "Transformer": ("models", "base.modules.transformer", "sentence_transformer.modules.transformer"),
    "Pooling": ("models", "sentence_transformer.modules.pooling"),
    "Normalize": ("models", "base.modules.normalize", "sentence_transformer.modules.normalize"),
    "Dense": ("models", "base.modules.dense", "sentence_transformer.modules.dense"),
}
MODULES = {f"sentence_transformers.{place}.{name}": name for name, places in _MODULES.items() for place in places}
METHOD = ({"method": "forward", "method_output_name": name} for name in ("last_hidden_state", "pooler_output"))
FORWARD: tuple[Mapping[str, object], ...] = tuple({"text": method} for method in METHOD)
BERT_SETTINGS = frozenset({
    "max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name",
})  # fmt: skip
MODULE_SETTINGS: Mapping[str, type] = {
    "pooling_mode": str, "include_prompt": bool, "embedding_dimension": int, "word_embedding_dimension": int,
    "module_input_name": str, "module_output_name": str,
    "in_features": int, "out_features": int, "bias": bool, "use_residual": bool, "activation_function": str,
}  # fmt: skip
ACTIVATIONS = frozenset({
    "torch.nn.modules.linear.Identity",
    *(f"torch.nn.modules.activation.{name}" for name in ("GELU", "ReLU", "SiLU", "Sigmoid", "Tanh")),
})  # fmt: skip

Conf = Mapping[str, Any]


def transformers_problem(folder: Path, conf: Conf, files: frozenset[str]) -> str | None:
    """Why the pipeline that `mlflow.transformers` saved in `folder` may run code; None if it cannot.

    files: those of the model, without the ones that every model may have.
    """
    if conf["task"] not in TASKS:
        return f"the task {conf['task']!r} is not one of those that are known to run no code"
    parts = {name: name.partition("/")[2] for name in files if name.startswith("model/")}
    tokenizer = {name: name.removeprefix("components/tokenizer/") for name in files - parts.keys()}
    return (
        _unexpected({name for name in tokenizer if tokenizer[name] not in TOKENIZER})
        or _unexpected({name for name, inner in parts.items() if not _is_weights(inner) and inner != "config.json"})
        or _checkpoint(folder / "model", {*parts.values()}, str(conf["pipeline_model_type"]))
        or _tokenizer(folder / "components/tokenizer", {*tokenizer.values()}, str(conf["tokenizer_type"]))
    )


def sentence_transformers_problem(folder: Path, conf: Conf, files: frozenset[str]) -> str | None:
    """Why the model that `mlflow.sentence_transformers` saved in `folder` may run code; None if it cannot."""
    data = folder / "model.sentence_transformer"
    names = {name.removeprefix(f"{data.name}/") for name in files}
    modules = _read(data / "modules.json")
    kinds = {each["path"]: MODULES.get(each["type"]) for each in modules}
    if None in kinds.values() or len(kinds) != len(modules) or kinds.get("") != "Transformer":
        return f"modules.json names {[each['type'] for each in modules]!r:.200}"
    inner = {path: kind for path, kind in kinds.items() if path and "/" not in path}
    configs = {f"{path}/config.json" for path in inner}
    weights = {f"{path}/model.safetensors" for path, kind in inner.items() if kind == "Dense"}
    own = {"modules.json", "config.json", "sentence_bert_config.json", "config_sentence_transformers.json", "README.md"}
    settings = [_module(_read(data / name), name) for name in configs if name in names]
    return (
        _unexpected({n for n in names - own - configs - weights - TOKENIZER if not _is_weights(n)})
        or next(filter(None, settings), None)
        or _wrapper(data, names)
        or _checkpoint(data, names, str(conf["pipeline_model_type"]))
        or _tokenizer(data, names, None)
    )


def pads_left(folder: Path) -> bool:
    """Whether a sentence-transformers model pads on the left, so that a text's positions depend on the longest text."""
    data = folder / "model.sentence_transformer"
    paths = [path for name in ("tokenizer_config.json", "tokenizer.json") if (path := data / name).is_file()]
    try:
        settings = [_read(path) for path in paths]
        sides = [each.get("padding_side") or (each.get("padding") or {}).get("direction") for each in settings]
    except (ValueError, AttributeError):  # not a tokenizer that can be loaded
        return True
    return any(str(side).lower() == "left" for side in sides)


def _unexpected(names: Collection[str]) -> str | None:
    return f"it contains {min(names)}, which may hold code" if names else None


def _is_weights(name: str) -> bool:
    return SHARD.fullmatch(name) is not None or name == INDEX


def _checkpoint(folder: Path, names: set[str], architecture: str) -> str | None:
    settings = _read(folder / "config.json")
    prefix = ARCHITECTURES.get(settings.get("model_type"))
    if prefix is None:
        return f"the architecture {settings.get('model_type')!r:.100} is not one of those that are known to run no code"
    for name in (architecture, *(settings.get("architectures") or ())):
        if not re.fullmatch(prefix + HEADS, str(name)):
            return f"{name!r:.100} is not a class of transformers for {settings['model_type']}"
    if not any(SHARD.fullmatch(name) for name in names):
        return "it has no weights as safetensors"
    shards = set((_read(folder / INDEX).get("weight_map") or {}).values()) if INDEX in names else set()
    if not all(isinstance(shard, str) and SHARD.fullmatch(shard) and shard in names for shard in shards):
        return f"{INDEX} names a file that is not safetensors"
    return _texts(settings, "config.json")


def _tokenizer(folder: Path, names: set[str], declared: str | None) -> str | None:
    if "tokenizer.json" not in names:
        return "its tokenizer is not a tokenizer.json"
    for name in sorted(names & (TOKENIZER - {"tokenizer.json", "vocab.json", "added_tokens.json"})):
        if not name.endswith(".json"):
            continue
        settings = _read(folder / name)
        if (problem := _texts(settings, name)) is not None:
            return problem
        for kind in (settings.get("tokenizer_class"), declared):
            if kind is not None and not _is_tokenizer(str(kind)):
                return f"{kind!r:.100} is not a tokenizer of transformers that is known to run no code"
        if settings.get("backend", "tokenizers") != "tokenizers":
            return f"{name} names the tokenizer backend {settings['backend']!r:.50}"
    return None


def _is_tokenizer(name: str) -> bool:
    prefixes = "|".join((*ARCHITECTURES.values(), "PreTrained"))
    return name == "TokenizersBackend" or re.fullmatch(rf"(?:{prefixes})Tokenizer(?:Fast)?", name) is not None


def _texts(value: object, where: str, key: str = "", free: bool = False) -> str | None:
    """The first setting that may name code: one of `CODE`, or any text under a name that is not in `TEXTS`."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name in CODE and inner not in (None, False):
                return f"{where} sets {name}"
            named = str(name) if not free else key
            if (problem := _texts(inner, where, named, free or name in ("id2label", "label2id"))) is not None:
                return problem
        return None
    if isinstance(value, list):
        return next(filter(None, (_texts(each, where, key, free) for each in value)), None)
    if (
        isinstance(value, str)
        and not free
        and (key not in TEXTS or (key in ("dtype", "torch_dtype") and value not in DTYPES))
    ):
        return f"{where} sets {key} to {value!r:.100}"
    return None


def _wrapper(data: Path, names: set[str]) -> str | None:
    """Check the two files in which sentence-transformers describes itself."""
    bert = _read(data / "sentence_bert_config.json") if "sentence_bert_config.json" in names else {}
    if unknown := sorted(bert.keys() - BERT_SETTINGS):
        return f"sentence_bert_config.json sets {unknown[0]}"
    if bert.get("transformer_task", "feature-extraction") != "feature-extraction":
        return f"sentence_bert_config.json names the task {bert['transformer_task']!r:.50}"
    if bert.get("modality_config", FORWARD[0]) not in FORWARD:
        return "sentence_bert_config.json calls other methods than forward on text"
    own = _read(data / "config_sentence_transformers.json") if "config_sentence_transformers.json" in names else {}
    known = {"__version__", "default_prompt_name", "model_type", "prompts", "similarity_fn_name", "truncate_dim"}
    if unknown := sorted(own.keys() - known):
        return f"config_sentence_transformers.json sets {unknown[0]}"
    kind = own.get("model_type", "SentenceTransformer")
    return None if kind == "SentenceTransformer" else f"config_sentence_transformers.json names {kind!r:.50}"


def _module(settings: Conf, where: str) -> str | None:
    """Check the settings of pooling or normalization."""
    for name, value in settings.items():
        kind = MODULE_SETTINGS.get(name, bool if name.startswith("pooling_mode_") else None)
        if kind is None or not isinstance(value, kind | None):
            return f"{where} sets {name} to {value!r:.50}"
        if name == "activation_function" and value not in ACTIVATIONS:
            return f"{where} sets {name} to {value!r:.100}"
    return None


def _read(path: Path) -> Any:
    return json.loads(path.read_bytes())
