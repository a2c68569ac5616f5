"""Calibration texts: read from the user's file, or generated deterministically."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.classifier import make_classifier
from tokenizers import Tokenizer

from likewise.builder.texts import calibration_texts
from likewise.bundles.format import LoggedEnvironment
from likewise.core.errors import EngineUnavailable, InputInvalid, InputNotFound, WrongUsage
from likewise.engine.engine_options import CompileOptions
from likewise.engine.kinds import CalibrationTexts, CompileRequest, ModelFacts
from likewise.engine.text.texts import GENERATED, MAX_TEXTS, default_texts
from likewise.pipeline.compile import _offers_bf16

EXPECTED = ["a fine film", 'with "quotes", a comma\nand a line', ""]


def csv_file(path: Path) -> Path:
    path.write_text('n,review\n1,a fine film\n2,"with ""quotes"", a comma\nand a line"\n3,\n', encoding="utf-8")
    return path


def jsonl_file(path: Path) -> Path:
    rows = [{"n": n, "review": text} for n, text in enumerate(EXPECTED)]
    path.write_text("\n".join(map(json.dumps, [*rows, {"n": 9, "review": None}])) + "\n\n", encoding="utf-8")
    return path


def parquet_file(path: Path) -> Path:
    pq.write_table(pa.table({"n": [0, 1, 2, 3], "review": [*EXPECTED, None]}), path)
    return path


@pytest.mark.parametrize(("make", "suffix"), [(csv_file, "csv"), (jsonl_file, "jsonl"), (parquet_file, "parquet")])
def test_texts_are_read_from_every_format(tmp_path: Path, make: object, suffix: str) -> None:
    path = make(tmp_path / f"texts.{suffix}")  # type: ignore[operator]
    texts = calibration_texts(path, "review")
    assert (list(texts.values), texts.factor) == (EXPECTED, 1.5)
    with pytest.raises(InputInvalid, match="no column 'text'; its columns: n, review"):
        calibration_texts(path, "text")


def test_only_column_needs_no_name(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("words\nyes\n", encoding="utf-8")
    assert calibration_texts(path, "text").values == ("yes",)


def test_long_file_is_sampled_evenly(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("text\n" + "".join(f"number {n}\n" for n in range(3 * MAX_TEXTS)), encoding="utf-8")
    values = calibration_texts(path, "text").values
    assert len(values) == MAX_TEXTS
    assert values[:2] == ("number 0", "number 3")
    assert values[-1] == f"number {3 * MAX_TEXTS - 3}"


@pytest.mark.parametrize(
    ("name", "data", "error", "why"),
    [
        ("gone.csv", None, InputNotFound, "No such file"),
        ("texts.txt", b"text", InputInvalid, "unsupported format"),
        ("texts.csv", b"text\n", InputInvalid, "no text in the column"),
        ("texts.csv", b"", InputInvalid, "there is no header"),
        ("texts.csv", b"text\n\xff\xfe\n", InputInvalid, "not valid Unicode"),
        ("texts.jsonl", b"[1]\n", InputInvalid, "line 1 is a JSON list, not an object"),
        ("texts.jsonl", b"{", InputInvalid, "texts.jsonl"),
        ("texts.jsonl", b'{"text": 3}\n', InputInvalid, "no text in the column"),
        ("texts.parquet", b"PAR1", InputInvalid, "texts.parquet"),
    ],
)
def test_unreadable_file_is_reported(
    tmp_path: Path, name: str, data: bytes | None, error: type[Exception], why: str
) -> None:
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(error, match=why):
        calibration_texts(path, "text")


def test_generated_texts_are_reproducible_and_of_every_length(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "classifier")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
    tokenizer = folder / "tokenizer.json"
    texts = default_texts(tmp_path / "model", tokenizer, 64)
    assert texts == default_texts(tmp_path / "model", tokenizer, 64)
    assert (len(texts.values), texts.factor) == (GENERATED, 3.0)
    reader = Tokenizer.from_file(str(tokenizer))
    reader.no_padding()
    reader.no_truncation()
    lengths = [len(each.ids) for each in reader.encode_batch(list(texts.values))]
    assert min(lengths) <= 8
    assert max(lengths) >= 60


def test_unknown_precision_is_rejected() -> None:
    with pytest.raises(WrongUsage, match="unknown precision 'int8'"):
        CompileOptions(precision="int8")


@pytest.mark.parametrize(
    ("precision", "given", "fails"), [(None, True, True), (None, False, False), ("bf16", False, True)]
)
def test_changed_labels_fail_the_build_only_for_the_users_texts_or_if_bf16_is_required(
    tmp_path: Path, precision: str | None, given: bool, fails: bool
) -> None:
    result = {"classifiers": [{"refused": "1 labels changed …", "summary": "not offered: …", "outside": 1}]}
    lines: list[str] = []
    texts = CalibrationTexts(("a fine film",), "the user's", 1.5) if given else None
    model = ModelFacts(tmp_path, {}, None, None, (), None, LoggedEnvironment())
    request = CompileRequest(CompileOptions(precision=precision), texts, model, tmp_path, lines.append)
    if not fails:
        assert not _offers_bf16(result, {"models:/a/1": 256}, request)
        assert lines == ["bf16 for models:/a/1: 1 labels changed …"]
        return
    with pytest.raises(EngineUnavailable, match="models:/a/1: 1 labels changed") as refused:
        _offers_bf16(result, {"models:/a/1": 256}, request)
    assert "--precision fp32" in refused.value.remedy
