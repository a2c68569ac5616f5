"""Removes computations that a classifier's output does not use from its OpenVINO graph, without changing the rest.

Most text classifiers only use the first token of the last layer's output. That layer's keys and values need every
token, but its query, attention output and feed-forward network, five sixths of its matrix operations, need only one.
Runtimes do not detect this. A graph with a different structure is not changed; the caller compares the result with the
torch model.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from likewise.core.extras import need

UNARY = ("Gelu", "Tanh", "Relu", "Swish", "Sigmoid")
BINARY = ("Add", "Multiply", "Subtract", "Divide")

Edge = tuple[Any, int]
"""An input of a node, and the token axis of its tensor."""


def narrow_masks(model: Any, position: int) -> None:
    """Give every attention node one boolean mask [batch, 1, 1, length], computed from an input (0 and 1).

    position: of that input.
    The traced mask is [batch, 1, length, length], as large as a head's scores. It is boolean because OpenVINO 2026.4
    computed wrong logits in bf16 from an additive mask, depending on the order of the nodes that computed it.
    """
    ops = need("openvino.opset13", extra="openvino")
    mask = ops.convert(ops.unsqueeze(model.input(position).get_node(), ops.constant(np.array([1, 2]))), "boolean")
    for node in model.get_ordered_ops():
        if node.get_type_name() == "ScaledDotProductAttention" and node.get_input_size() > 3:
            node.input(3).replace_source_output(mask.output(0))
    model.validate_nodes_and_infer_types()


def keep_first_token(model: Any) -> bool:
    """Compute only the first token above the last attention's keys and values. Returns whether that was possible."""
    cuts = _cuts(model.get_ordered_ops())
    ops = need("openvino.opset13", extra="openvino")
    for edge, axis in cuts:
        start, stop, step, axes = (ops.constant(np.array([value])) for value in (0, 1, 1, axis))
        edge.replace_source_output(ops.slice(edge.get_source_output(), start, stop, step, axes).output(0))
    model.validate_nodes_and_infer_types()
    return bool(cuts)


def _cuts(nodes: list[Any]) -> list[Edge]:
    """The edges to slice: from the selection of the first token towards the inputs, the last that need one token."""
    edges_by_node: dict[str, list[Edge]] = {}
    cuts: list[Edge] = []
    attention = False
    for node in reversed(nodes):
        if not edges_by_node and not cuts and _selects_first(node):
            _want(edges_by_node, [(node.input(0), 1)])
        elif edges := edges_by_node.pop(node.get_friendly_name(), None):
            exclusive = len(edges) == len(node.output(0).get_target_inputs())
            inputs = _inputs(node, edges[0][1]) if exclusive else None
            attention |= inputs is not None and node.get_type_name() == "ScaledDotProductAttention"
            if inputs is None:
                cuts += edges
            else:
                _want(edges_by_node, inputs)
    return cuts if attention else []


def _want(wanted: dict[str, list[Edge]], edges: list[Edge]) -> None:
    for edge, axis in edges:
        wanted.setdefault(edge.get_source_output().get_node().get_friendly_name(), []).append((edge, axis))


def _selects_first(node: Any) -> bool:
    if node.get_type_name() != "Gather":
        return False
    index, axis = (_constant(node.input(position)) for position in (1, 2))
    return index is not None and axis is not None and index.shape == () and int(index) == 0 and int(axis) == 1


def _inputs(node: Any, axis: int) -> list[Edge] | None:
    """The inputs of which `node` needs only one token to compute one token on its `axis`; None if it needs all."""
    kind = node.get_type_name()
    first = node.input(0)
    if kind in UNARY:
        return [(first, axis)]
    if kind in BINARY:
        return _both(node, axis)
    if kind == "MatMul":
        plain = not node.get_attributes()["transpose_a"] and _constant(node.input(1)) is not None
        return [(first, axis)] if plain and axis < _rank(node.input(0)) - 1 else None
    if kind == "MVN":
        axes = _constant(node.input(1))
        across = axes is None or axis in {int(each) % _rank(first) for each in axes}
        return None if across else [(first, axis)]
    if kind == "ScaledDotProductAttention":
        narrow = node.get_input_size() < 4 or node.input(3).get_partial_shape()[2] == 1
        return [(first, axis)] if axis == 2 and narrow and not node.get_attributes()["causal"] else None
    return _moved(node, axis)


def _both(node: Any, axis: int) -> list[Edge] | None:
    """The token-dependent operands of an elementwise node; None if a constant operand varies along the token axis."""
    rank = _rank(node.output(0))
    edges: list[Edge] = []
    for each in node.inputs():
        constant = _constant(each)
        if constant is None:
            edges.append((each, axis))
        aligned = (1,) * (rank - _rank(each)) + (() if constant is None else constant.shape)
        if (constant is not None and aligned[axis] != 1) or (constant is None and _rank(each) != rank):
            return None
    return edges


def _moved(node: Any, axis: int) -> list[Edge] | None:
    """The input of a transpose, or of a reshape that splits or joins heads, with its token axis; None for others."""
    argument = _constant(node.input(1)) if node.get_input_size() > 1 else None
    if argument is None:
        return None
    if node.get_type_name() == "Transpose":
        return [(node.input(0), int(argument[axis]))]
    if node.get_type_name() != "Reshape" or not node.get_attributes()["special_zero"] or argument[axis] != 0:
        return None
    shape = node.input(0).get_partial_shape()
    unchanged = all(size == 0 or shape[index] == int(size) for index, size in enumerate(argument[:axis]))
    return [(node.input(0), axis)] if unchanged else None


def _constant(edge: Any) -> Any:
    """The constant array of an input, or None."""
    node = edge.get_source_output().get_node()
    return node.data if node.get_type_name() == "Constant" else None


def _rank(port: Any) -> int:
    return int(port.get_partial_shape().rank.get_length())
