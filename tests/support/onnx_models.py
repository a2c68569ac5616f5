"""Small ONNX models, made by hand, and saved with MLflow's ONNX flavour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from onnx import TensorProto, helper, numpy_helper

WORDS, POSITIONS, WIDTH = 50, 40, 8
FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
Axes = Sequence["int | str | None"]


def tensor(name: str, kind: int, *axes: int | str | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(axes))


def make(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Mapping[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    """A model of these nodes; it has been checked."""
    initializers = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return model


def text_model() -> onnx.ModelProto:
    """One attention layer over token ids [batch, length] with a mask; at most POSITIONS tokens. Weights from a seed."""
    random = np.random.default_rng(3)
    weights = {
        "words": random.normal(size=(WORDS, WIDTH)).astype("float32"),
        "positions": random.normal(size=(1, POSITIONS, WIDTH)).astype("float32"),
        "head": random.normal(size=(WIDTH, 3)).astype("float32"),
        "zero": np.array([0]),
        "one": np.array([1]),
        "last": np.array([2]),
        "big": np.array(1e4, "float32"),
        "single": np.array(1, "float32"),
    }
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["looked_up"]),
        helper.make_node("Shape", ["input_ids"], ["length"], start=1),
        helper.make_node("Slice", ["positions", "zero", "length", "one"], ["places"]),
        helper.make_node("Add", ["looked_up", "places"], ["embedded"]),
        helper.make_node("Transpose", ["embedded"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["embedded", "turned"], ["scores"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=FLOAT),
        helper.make_node("Unsqueeze", ["mask", "one"], ["keys"]),
        helper.make_node("Sub", ["keys", "single"], ["absent"]),
        helper.make_node("Mul", ["absent", "big"], ["bias"]),
        helper.make_node("Add", ["scores", "bias"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["attention"], axis=-1),
        helper.make_node("MatMul", ["attention", "embedded"], ["mixed"]),
        helper.make_node("Unsqueeze", ["mask", "last"], ["rows"]),
        helper.make_node("Mul", ["mixed", "rows"], ["present"]),
        helper.make_node("ReduceSum", ["present", "one"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "head"], ["logits"]),
    ]
    inputs = [tensor(name, INT64, "batch", "length") for name in ("input_ids", "attention_mask")]
    return make(nodes, inputs, [tensor("logits", FLOAT, "batch", 3)], weights)


def tensors(*specs: TensorSpec) -> Schema:
    return Schema(list(specs))


TEXT_SIGNATURE = ModelSignature(
    tensors(*(TensorSpec(np.dtype("int64"), (-1, -1), name) for name in ("input_ids", "attention_mask")))
)


def columns(kind: str, *names: str) -> ModelSignature:
    return ModelSignature(Schema([ColSpec(kind, name) for name in names]))


def save_onnx(model: onnx.ModelProto, folder: Path, **options: Any) -> Path:
    """Save the model to `folder` with MLflow's ONNX flavour."""
    mlflow.onnx.save_model(model, folder, pip_requirements=["onnxruntime"], **options)
    return folder
