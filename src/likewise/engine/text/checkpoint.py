"""Finds the files of a text classifier in a Hugging Face folder or an MLflow model of the `transformers` flavor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from likewise.core.errors import ModelInvalid

ATTENTION = (None, "eager", "sdpa")
"""Attention implementations in transformers itself; any other name may be a kernel that it downloads and runs."""

EXTERNAL = ("auto_map", "quantization_config", "configuration_files", "transformers_weights", "attribute_map")
"""Keys of `config.json` that make transformers use unchecked code or files, a different arithmetic, or other keys."""

ADAPTER = "adapter_config.json"
INDEX = "model.safetensors.index.json"

REMEDY = "log a fine-tuned sequence classifier with its fast tokenizer, weights as safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A sequence classifier on disk.

    weights: the folder of `config.json` and `*.safetensors`.  tokenizer: the path of `tokenizer.json`.
    labels: one name per logit, in order.  max_tokens: the longest input, including special tokens.
    """

    weights: Path
    tokenizer: Path
    labels: tuple[str, ...]
    pad_id: int
    max_tokens: int


def find_checkpoint(folder: Path) -> Checkpoint:
    """The classifier in `folder`, with weights and tokenizer in any sub-folders; raises ModelInvalid if there is none.

    MLflow's `transformers` flavor stores the two separately (`model/`, `components/tokenizer/`), Hugging Face stores
    them together: searching for the files supports both layouts in all versions.
    """
    weights = next((path.parent for path in _named(folder, "config.json") if _has_safetensors(path.parent)), None)
    if weights is None:
        raise ModelInvalid(f"{folder}: no config.json next to a .safetensors file", remedy=REMEDY)
    tokenizer = next(iter(_named(folder, "tokenizer.json")), None)
    if tokenizer is None:
        raise ModelInvalid(f"{folder}: no tokenizer.json", remedy=REMEDY)
    config = _read(weights / "config.json")
    _refuse_code(config, weights / "config.json")
    _refuse_other_weights(weights)
    pad_id = config.get("pad_token_id")
    return Checkpoint(
        weights=weights,
        tokenizer=tokenizer,
        labels=_labels(config, weights),
        pad_id=pad_id if isinstance(pad_id, int) else 0,
        max_tokens=_max_tokens(config, tokenizer.with_name("tokenizer_config.json")),
    )


def _named(folder: Path, name: str) -> list[Path]:
    """All files with that name, the shallowest first."""
    return sorted(filter(Path.is_file, folder.rglob(name)), key=lambda path: (len(path.parts), path))


def _has_safetensors(folder: Path) -> bool:
    return any(map(Path.is_file, folder.glob("*.safetensors")))  # no digest covers an empty folder


def _read(path: Path) -> Mapping[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelInvalid(f"{path}: not JSON: {error}", remedy="restore the file from the model's store") from error
    if not isinstance(value, dict):
        raise ModelInvalid(f"{path}: not a JSON object", remedy="restore the file from the model's store")
    return value


def _refuse_code(value: object, path: Path) -> None:
    """Raise ModelInvalid if the configuration, at any depth, requests code or files outside the checkpoint.

    transformers sets every key that it reads as an attribute, including in nested configurations.
    """
    if isinstance(value, list):
        for each in value:
            _refuse_code(each, path)
    if not isinstance(value, dict):
        return
    for key, setting in value.items():
        external = key in EXTERNAL and setting is not None
        if external or (key in ("attn_implementation", "_attn_implementation") and not _known_attention(setting)):
            raise ModelInvalid(f"{path}: {key} is {setting!r}, which may run unchecked code", remedy=REMEDY)
        _refuse_code(setting, path)


def _refuse_other_weights(folder: Path) -> None:
    """Raise ModelInvalid for an adapter, and for an index with weights outside `folder`, which no digest covers."""
    if (adapter := folder / ADAPTER).exists():  # transformers applies it only where peft is installed
        raise ModelInvalid(f"{adapter} names another model, and adapters are not supported", remedy=REMEDY)
    index = _read(folder / INDEX).get("weight_map") if (folder / INDEX).is_file() else {}
    for name in index.values() if isinstance(index, dict) else [index]:
        if not isinstance(name, str) or "/" in name or "\\" in name or not (folder / name).is_file():
            raise ModelInvalid(f"{folder / INDEX}: {name!r} is not a file in this folder", remedy=REMEDY)


def _known_attention(setting: object) -> bool:
    return all(each in ATTENTION for each in (setting.values() if isinstance(setting, dict) else (setting,)))


def _labels(config: Mapping[str, object], folder: Path) -> tuple[str, ...]:
    names = config.get("id2label")
    ids = [str(number) for number in range(len(names))] if isinstance(names, dict) else []
    if not isinstance(names, dict) or len(names) < 2 or set(ids) != set(names):
        raise ModelInvalid(f"{folder}/config.json: id2label must name at least two labels, 0 to n-1", remedy=REMEDY)
    if config.get("problem_type") not in (None, "single_label_classification"):
        raise ModelInvalid(f"{folder}/config.json: unsupported problem_type {config['problem_type']!r}", remedy=REMEDY)
    return tuple(str(names[number]) for number in ids)


def _max_tokens(config: Mapping[str, object], tokenizer_config: Path) -> int:
    """The smaller of the limits of the position embeddings and the tokenizer."""
    of_tokenizer = _read(tokenizer_config).get("model_max_length") if tokenizer_config.exists() else None
    limits = (config.get("max_position_embeddings"), of_tokenizer)
    return int(min((limit for limit in limits if isinstance(limit, int | float)), default=512))
