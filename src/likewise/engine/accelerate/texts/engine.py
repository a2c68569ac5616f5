"""The engine that tokenizes texts, computes them with a compiled graph, and makes predictions of its outputs."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from likewise.bundles.format import EngineEntry
from likewise.core.engine import EngineSpec, Work
from likewise.core.errors import BundleInvalid, LikewiseError, RowRefused
from likewise.core.isolation import isolate
from likewise.core.items import Item, Params, Row
from likewise.core.keys import item_key
from likewise.core.results import Failed, Ok, Result
from likewise.core.signature import Signature
from likewise.core.text import why_not_text
from likewise.engine.accelerate.calls import Calls
from likewise.engine.accelerate.form import MASK, METADATA, Form
from likewise.engine.accelerate.modules import open_compute
from likewise.engine.accelerate.texts.model import Encoder, Options, TextModel, Texts, Truncation, read_text_model
from likewise.engine.openvino_graph import PART, read_graph
from likewise.engine.text.compiled import TOKENIZER
from likewise.engine.text.engine import encode, read_tokenizer

TOKENIZERS = 8  # of different truncations, which requests may choose
PAIR = ("text", "text_pair")
UNNAMED = "0"  # as pandas names the column of a list
REMEDY = "send one text per row, in the column of the model's signature"

Encoding = NDArray[np.int32]
"""Ids of the tokens of a text, and their types: [2, tokens]."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The tokenized texts of an item, which is a whole request if `whole`."""

    encodings: Sequence[Encoding]
    options: Options
    whole: bool

    @property
    def tokens(self) -> int:
        return max(1, sum(len(each[0]) for each in self.encodings))


class Tokens:
    """Tokenizes as the tokenizers of transformers do."""

    def __init__(self, path: Path, model: TextModel) -> None:
        self._path = path
        self._model = model
        self._open = lru_cache(TOKENIZERS)(self._opened)

    def __call__(self, texts: Texts, options: Options) -> list[Encoding]:
        """One encoding per text."""
        texts = [text if isinstance(text, str) or text[1] else text[0] for text in texts]  # an empty second one is none
        if options.prompt:
            texts = [options.prompt + text if isinstance(text, str) else text for text in texts]
        tokenizer = self._open(options.truncation)
        return [np.array([each.ids, each.type_ids], dtype=np.int32) for each in encode(tokenizer, texts)]

    def _opened(self, truncation: Truncation | None) -> Tokenizer:
        tokenizer = read_tokenizer(self._path, remedy="bundle the model again")
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if truncation is not None:
            tokenizer.enable_truncation(truncation.tokens, strategy=truncation.strategy, direction=self._model.side)
        return tokenizer


class TextModelEngine:
    """A classifier or an encoder of texts.  All methods are thread-safe; rows are independent.

    calls: counts its computations.
    """

    def __init__(self, folder: Path, entry: EngineEntry, signature: Signature, *, row_wise: bool, slots: int) -> None:
        """folder: with `text.json`, `tokenizer.json` and the folder of the graph.

        Raises EngineUnavailable if this CPU cannot run it in the entry's precision, MissingExtra, BundleInvalid.
        """
        self._model = read_text_model(folder)
        self._tokens = Tokens(folder / TOKENIZER, self._model)
        paths = [path.parent for path in folder.glob(f"*/{METADATA}")]
        if len(paths) != 1:
            raise BundleInvalid(f"{folder} has {len(paths)} graphs", remedy="bundle the model again")
        self._name = paths[0].name
        self._form = Form.read(paths[0])
        self._compute = open_compute(read_graph(paths[0]), self._form, entry.precision)
        self._signature = signature
        self._limits = dict(zip(self._form.inputs, self._form.limits, strict=True))
        self.calls = Calls()
        self._spec = EngineSpec(
            name=entry.name,
            precision=entry.precision,
            row_wise=row_wise,
            thread_safe=True,
            pure=True,
            budget=PART,
            slots=slots,
            overlaps=row_wise,
        )

    @property
    def spec(self) -> EngineSpec:
        return self._spec

    @property
    def counters(self) -> dict[str, int]:
        """See `core.engine.counters`."""
        return dict(self.calls.counters)

    def prepare(self, items: Sequence[Item]) -> list[Work | Failed]:
        """One entry per item, with its tokenized texts."""
        inputs = [self._input(item) for item in items]
        prepared = iter(isolate(self._tokenized, [each for each in inputs if not isinstance(each, Failed)]))
        tokenized = [each if isinstance(each, Failed) else next(prepared) for each in inputs]
        return [
            each if isinstance(each, Failed) else Work(item_key(item).hex(), each.tokens, each)
            for item, each in zip(items, tokenized, strict=True)
        ]

    def run(self, work: Sequence[Work]) -> list[Result]:
        """One result per work, in order."""
        return isolate(self._results, work)

    def close(self) -> None:
        """Does nothing: the engine only uses memory."""

    def _input(self, item: Item) -> tuple[Texts, Options, bool] | Failed:
        try:
            options = self._model.options(_declared(self._signature, item.params))
            if isinstance(item, Row):
                return [self._text(item.columns, item.values)], options, False
            if item.table.sent is not None:
                raise RowRefused("expected rows with one text each", remedy=REMEDY)
            return [self._text(item.table.columns, values) for values in item.table.rows], options, True
        except LikewiseError as error:
            return Failed(error)

    def _text(self, columns: tuple[str, ...] | None, values: Sequence[object]) -> str | tuple[str, str]:
        """The text of a row, or its pair of texts; raises RowRefused."""
        encoder = isinstance(self._model, Encoder)
        if self._signature.columns is None:  # MLflow takes the first column, and keeps its name
            name = UNNAMED if columns is None else columns[0]
            if encoder or name == PAIR[0]:
                return _checked(values[0])
            if name != UNNAMED:
                raise RowRefused(f"expected the column {PAIR[0]}, got {name}", remedy=REMEDY)
            return _unnamed(values[0])
        if columns is None:
            return _checked(values[0])
        given = dict(zip(columns, values, strict=True))
        names = [str(each.name) for each in self._signature.inputs or () if each.required or each.name in given]
        if missing := [name for name in names if name not in given]:
            raise RowRefused(f"the input lacks the column {missing[0]!r}", remedy=REMEDY)
        if encoder:
            return _checked(given[names[0]])
        text, *pair = (_checked(given[name]) for name in PAIR if name in names)
        return (text, pair[0]) if pair else text

    def _tokenized(self, inputs: Sequence[tuple[Texts, Options, bool]]) -> list[Prepared | Failed]:
        together: dict[Options, list[str | tuple[str, str]]] = {}
        for texts, options, _ in inputs:
            together.setdefault(options, []).extend(texts)
        encodings: dict[Options, Iterator[Encoding]] = {
            options: iter(self._tokens(texts, options)) for options, texts in together.items()
        }
        found: list[Prepared | Failed] = []
        for texts, options, whole in inputs:
            own = [next(encodings[options]) for _ in texts]
            why = next(filter(None, map(self._too_long, own)), None)
            found.append(Prepared(own, options, whole) if why is None else Failed(why))
        return found

    def _too_long(self, encoding: Encoding) -> RowRefused | None:
        ids, types = encoding
        limit, longest = self._limits["input_ids"], self._form.longest or 0
        if len(ids) > longest:
            return RowRefused(
                f"the text has {len(ids):,} tokens, and the model takes at most {longest:,}",
                remedy="send a shorter text, or log the model with model_config={'truncation': True}",
            )
        if not len(ids):
            return RowRefused("the text has no tokens", remedy="send a text")
        kinds = self._limits.get("token_type_ids")
        if (limit is not None and ids.max() >= limit) or (kinds is not None and types.max() >= kinds):
            return RowRefused(
                "the tokenizer gives a token that the model does not have",
                remedy="log the model with its own tokenizer",
            )
        return None

    def _results(self, work: Sequence[Work]) -> list[Result]:
        prepared = [cast(Prepared, each.payload) for each in work]
        rows = [(encoding, each.options) for each in prepared for encoding in each.encodings]
        outputs = self._computed([encoding for encoding, _ in rows]) if rows else np.empty((0, 1), np.float32)
        together: dict[Options, list[int]] = {}
        for at, (_, options) in enumerate(rows):
            together.setdefault(options, []).append(at)
        predictions: dict[int, object] = {}
        for options, places in together.items():
            predictions.update(zip(places, self._model.predictions(outputs[places], options), strict=True))
        values = iter(predictions[at] for at in range(len(rows)))
        return [Ok([next(values) for _ in each.encodings]) if each.whole else Ok(next(values)) for each in prepared]

    def _computed(self, encodings: Sequence[Encoding]) -> NDArray[np.float32]:
        """The first output of the graph, [texts, …]."""
        shape = len(encodings), max(each.shape[1] for each in encodings)
        arrays = {name: np.zeros(shape, dtype=np.int64) for name in ("input_ids", MASK, "token_type_ids")}
        for row, (ids, types) in enumerate(encodings):
            arrays["input_ids"][row, : len(ids)] = ids
            arrays["token_type_ids"][row, : len(ids)] = types
            arrays[MASK][row, : len(ids)] = 1
        inputs = [arrays[name] for name in self._form.inputs]
        outputs = self._compute(inputs)
        self.calls.computed(self._name, inputs, outputs)
        return outputs[0]


def _declared(signature: Signature, params: Params) -> Params:
    """Those params that the signature declares, which are all that MLflow passes on, as values of Python."""
    names = {str(each.name) for each in signature.params or ()}
    given = (params or {}).items()
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in given if name in names}


def _checked(value: object) -> str:
    if (why := why_not_text(value)) is not None:
        raise RowRefused(why, remedy=REMEDY)
    return str(value)


def _unnamed(value: object) -> str | tuple[str, str]:
    """A text, or a pair in a text as MLflow's signature for pairs has it: `{"text": …, "text_pair": …}`."""
    text = _checked(value)
    if not text.lstrip().startswith("{"):
        return text
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text
    if not isinstance(found, dict) or not {PAIR[0]} <= set(found) <= {*PAIR}:
        return text
    first, *second = (_checked(found[name]) for name in PAIR if name in found)
    return (first, second[0]) if second else first
