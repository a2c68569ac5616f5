"""The OpenVINO forward pass on a small real checkpoint: torch's results, bit-identical in any batch, without torch."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.classifier import POSITIONS, TEXTS, make_classifier
from transformers import AutoModelForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

from likewise.core.errors import EngineUnavailable
from likewise.engine import openvino_graph
from likewise.engine.openvino_calls import Requests, runtime
from likewise.engine.openvino_graph import read_graph
from likewise.engine.text import Forward, TextEngine, find_checkpoint, open_torch
from likewise.engine.text.openvino import convert, open_openvino

pytestmark = pytest.mark.slow

BF16 = "BF16" in runtime().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
PRECISIONS = ["fp32", pytest.param("bf16", marks=pytest.mark.skipif(not BF16, reason="this CPU has no bf16"))]


READ = """
from likewise.engine.openvino_graph import read_graph as r
from likewise.engine.text.openvino import open_openvino as o
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openvino")
    convert(find_checkpoint(checkpoint), folder)
    return folder


@pytest.fixture(scope="module")
def forwards(folder: Path) -> dict[str, Forward]:
    return {
        name: open_openvino(read_graph(folder), precision=name, threads=2)
        for name in (["fp32", "bf16"] if BF16 else ["fp32"])
    }


def padded(rows: list[list[int]], width: int) -> tuple[np.ndarray, np.ndarray]:
    ids, mask = np.zeros((2, len(rows), width), dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def engine(checkpoint: Path, forward: Forward) -> TextEngine:
    return TextEngine.open(checkpoint, open_forward=lambda _: forward)


def test_fp32_gives_torchs_labels_and_scores(checkpoint: Path, forwards: dict[str, Forward]) -> None:
    reference, fast = TextEngine.open(checkpoint), engine(checkpoint, forwards["fp32"])
    expected = reference.run(reference.prepare(TEXTS))
    predictions = fast.run(fast.prepare(TEXTS))
    assert [each.label for each in predictions] == [each.label for each in expected]
    assert [each.score for each in predictions] == pytest.approx([each.score for each in expected], abs=1e-5)
    assert {each.label for each in predictions} == {"negative", "positive"}


@pytest.mark.skipif(not BF16, reason="this CPU has no bf16")
def test_bf16_is_close_to_fp32_but_different(checkpoint: Path, forwards: dict[str, Forward]) -> None:
    encodings = TextEngine.open(checkpoint).prepare(TEXTS)
    ids, mask = padded([list(each) for each in encodings], POSITIONS)
    exact, fast = forwards["fp32"](ids, mask), forwards["bf16"](ids, mask)
    assert 0 < np.abs(fast - exact).max() < 0.1 * np.abs(exact).max()


rows = st.lists(st.lists(st.integers(1, 150), min_size=1, max_size=POSITIONS), min_size=1, max_size=40)


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=25, deadline=None)
@given(rows=rows, padding=st.integers(0, 20), data=st.data())
def test_row_is_bit_identical_in_any_batch(
    forwards: dict[str, Forward], precision: str, rows: list[list[int]], padding: int, data: st.DataObject
) -> None:
    forward = forwards[precision]
    chosen = data.draw(st.integers(0, len(rows) - 1))
    together = forward(*padded(rows, min(POSITIONS, max(map(len, rows)) + padding)))
    alone = forward(*padded([rows[chosen]], len(rows[chosen])))
    assert together[chosen].tobytes() == alone[0].tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_result_does_not_depend_on_the_number_of_threads(
    folder: Path, forwards: dict[str, Forward], precision: str
) -> None:
    inputs = padded([list(range(1, 1 + length)) for length in range(1, POSITIONS)], POSITIONS)
    alone = open_openvino(read_graph(folder), precision=precision, threads=1)(*inputs)
    assert alone.tobytes() == forwards[precision](*inputs).tobytes()


def test_window_is_split_and_lengths_are_rounded_up(
    forwards: dict[str, Forward], monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    infer = Requests.infer
    monkeypatch.setattr(Requests, "infer", lambda self, given: (shapes.append(given[0].shape), infer(self, given))[1])
    forwards["fp32"](*padded([[5] * (1 + number % POSITIONS) for number in range(90)], POSITIONS))
    assert sum(count for count, _ in shapes) == 90
    assert all(
        count * length <= openvino_graph.PART and length % openvino_graph.BUCKET == 0 for count, length in shapes
    )


def test_rounded_length_is_limited_by_the_position_embeddings(tmp_path: Path) -> None:
    model = make_classifier(tmp_path / "model")
    (model / "tokenizer_config.json").write_text('{"model_max_length": 50}')
    convert(find_checkpoint(model), tmp_path / "out")
    ids, mask = padded([[7] * 50, [9] * 41], 50)
    logits = open_openvino(read_graph(tmp_path / "out"), precision="fp32")(ids, mask)
    assert logits == pytest.approx(open_torch(find_checkpoint(model))(ids, mask), abs=1e-4)


def test_threads_get_the_right_results(forwards: dict[str, Forward]) -> None:
    inputs = [padded([[token] * 20] * 30, 24) for token in range(1, 7)]
    expected = [forwards["fp32"](*each).tobytes() for each in inputs]
    results: dict[int, set[bytes]] = {index: set() for index in range(len(inputs))}

    def predict(index: int) -> None:
        results[index] = {forwards["fp32"](*inputs[index]).tobytes() for _ in range(10)}

    threads = [threading.Thread(target=predict, args=(index,)) for index in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[index] for index in range(len(inputs))] == [{each} for each in expected]


@pytest.mark.parametrize("threads", [1, 2])
def test_inference_that_fails_raises_and_later_ones_are_right(
    folder: Path, forwards: dict[str, Forward], threads: int
) -> None:
    """With one thread, OpenVINO's own `infer` returns the logits of the inference before."""
    too_long = 2 * POSITIONS  # the graph has no position embeddings for it
    forward = open_openvino(replace(read_graph(folder), longest=too_long), precision="fp32", threads=threads)
    for row in ([5, 6, 7], [8, 9]):
        assert forward(*padded([row], 3)).tobytes() == forwards["fp32"](*padded([row], 3)).tobytes()
        with pytest.raises(RuntimeError):
            forward(*padded([[5] * too_long], too_long))


CONVERT = """
import sys; from pathlib import Path
from likewise.engine.text import find_checkpoint
from likewise.engine.text.openvino import convert
convert(find_checkpoint(Path(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_conversion_is_reproducible(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    convert(find_checkpoint(checkpoint), tmp_path / "again")
    subprocess.run([sys.executable, "-c", CONVERT, checkpoint, tmp_path / "elsewhere"], check=True)
    for name in ("model.xml", "model.bin"):
        for other in ("again", "elsewhere"):
            assert (tmp_path / other / name).read_bytes() == (folder / name).read_bytes()
    assert {path.name for path in folder.iterdir()} == {"model.xml", "model.bin"}


ALONE = """
import sys; sys.modules["torch"] = sys.modules["transformers"] = None
from pathlib import Path
import numpy as np
from likewise.engine.openvino_graph import read_graph
from likewise.engine.text.openvino import open_openvino
forward = open_openvino(read_graph(Path(sys.argv[1])), precision="fp32", threads=1)
sys.stdout.buffer.write(forward(np.array([[5, 6, 7]]), np.array([[1, 1, 1]])).tobytes())
"""


def test_runs_without_torch_and_transformers(folder: Path, forwards: dict[str, Forward]) -> None:
    done = subprocess.run([sys.executable, "-c", ALONE, folder], check=True, stdout=subprocess.PIPE)
    assert done.stdout == forwards["fp32"](*padded([[5, 6, 7]], 3)).tobytes()


def _lengths_of_queries(folder: Path) -> list[str]:
    nodes = runtime().read_model(folder / "model.xml").get_ordered_ops()
    attentions = [node for node in nodes if node.get_type_name() == "ScaledDotProductAttention"]
    assert all(str(node.input(3).get_partial_shape()[2]) == "1" for node in attentions)
    return [str(node.input(0).get_partial_shape()[2]) for node in attentions]


def test_last_layer_computes_only_the_first_token(folder: Path) -> None:
    all_tokens, last = _lengths_of_queries(folder)
    assert all_tokens == "?"
    assert last.endswith("1")  # at most 1


def test_another_architecture_gives_torchs_results(tmp_path: Path) -> None:
    model = _roberta(make_classifier(tmp_path / "model"))
    convert(find_checkpoint(model), tmp_path / "out")
    ids, mask = padded([[5, 9, 30, 7, 8], [4, 6], [3] * 20], 20)
    ids[mask == 0] = 1
    logits = open_openvino(read_graph(tmp_path / "out"), precision="fp32")(ids, mask)
    reference = AutoModelForSequenceClassification.from_pretrained(model).eval()
    with torch.inference_mode():
        expected = reference(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits.numpy()
    assert logits == pytest.approx(expected, abs=1e-4)


def _roberta(folder: Path) -> Path:
    torch.manual_seed(2)
    config = RobertaConfig(
        vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=70, initializer_range=0.3, id2label={0: "no", 1: "yes"}, pad_token_id=1,
    )  # fmt: skip
    RobertaForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_conversion_with_different_results_is_rejected(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = openvino_graph._native
    monkeypatch.setattr(openvino_graph, "_native", lambda *given: [each + 1 for each in native(*given)])
    with pytest.raises(EngineUnavailable, match="torch's results"):
        convert(find_checkpoint(checkpoint), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_optimization_that_changes_results_is_not_used(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(graph: ov.Model, _: int) -> None:
        gelu = next(node for node in graph.get_ordered_ops() if node.get_type_name() == "Gelu")
        gelu.output(0).replace(gelu.input_value(0))

    monkeypatch.setattr(openvino_graph, "narrow_masks", spoil)
    convert(find_checkpoint(checkpoint), tmp_path / "out")
    forward, reference = (
        open_openvino(read_graph(tmp_path / "out"), precision="fp32"),
        open_torch(find_checkpoint(checkpoint)),
    )
    inputs = padded([[5, 9, 30], [4] * 20], 20)
    assert forward(*inputs) == pytest.approx(reference(*inputs), abs=1e-4)


@pytest.mark.parametrize(
    ("files", "precision"), [({}, "fp32"), ({"model.xml": "<net"}, "fp32")], ids=["missing", "damaged"]
)
def test_invalid_files_are_rejected(tmp_path: Path, files: dict[str, str], precision: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(EngineUnavailable, match="cannot read"):
        open_openvino(read_graph(tmp_path), precision=precision)


def test_unknown_precision_is_rejected_with_the_supported_ones(folder: Path) -> None:
    with pytest.raises(EngineUnavailable) as refused:
        open_openvino(read_graph(folder), precision="int8")
    assert "fp32" in refused.value.remedy


def test_bf16_is_rejected_if_the_instructions_are_disabled(folder: Path) -> None:
    code = "import sys; from pathlib import Path\n"
    code += READ
    code += "from likewise.core.errors import EngineUnavailable as E\ntry: o(r(Path(sys.argv[1])), precision='bf16')\n"
    code += "except E as e: print(e.remedy)"
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code, folder], check=True, stdout=subprocess.PIPE, env=environment)
    assert b"fp32" in done.stdout


@pytest.mark.slow
def test_first_passes_of_several_threads_do_not_deadlock(folder: Path) -> None:
    """A race in the binding, in about one of ten new processes, before opening a pass ran it once."""
    code = "import sys, threading, numpy; from pathlib import Path\n"
    code += READ
    code += "forward = o(r(Path(sys.argv[1])), precision='fp32', threads=2)\n"
    code += "inputs = numpy.ones((40, 16), dtype=numpy.int64), numpy.ones((40, 16), dtype=numpy.int64)\n"
    code += "threads = [threading.Thread(target=forward, args=inputs) for _ in range(4)]\n"
    code += "[each.start() for each in threads]; [each.join() for each in threads]"
    for _ in range(5):
        subprocess.run([sys.executable, "-c", code, folder], check=True, timeout=120)


@pytest.mark.parametrize("closing", ["first", "last", "other thread"])
def test_signal_is_handled_after_passes_are_closed(folder: Path, closing: str) -> None:
    """The runtime's signal stack must not be freed while a thread uses it: see `runtime`."""
    code = "import os, signal, sys, threading; from pathlib import Path\n"
    code += READ
    code += "passes = [o(r(Path(sys.argv[1])), precision='fp32', threads=1) for _ in range(2)]\n"
    code += {
        "first": "passes.pop(0); passes.clear()\n",
        "last": "passes.pop(); passes.clear()\n",
        "other thread": "thread = threading.Thread(target=passes.clear); thread.start(); thread.join()\n",
    }[closing]
    code += "signal.signal(signal.SIGTERM, lambda *_: print('signal handled'))\nos.kill(os.getpid(), signal.SIGTERM)"
    done = subprocess.run([sys.executable, "-c", code, folder], check=True, stdout=subprocess.PIPE, timeout=120)
    assert done.stdout == b"signal handled\n"
