"""A second graph over the same weights, for an engine that unpacks them at load.

Where low-bit weights become floats anyway, splitting a layer by bit-width only costs: on a CPU the
Gather that restores the order of the channels takes as long as the products. Here the order is
restored in the weights instead, which fold into one constant per layer, so the float policy's speed
comes back. Both graphs read one data file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from qvla_offline.export.stored import HalfOffset, RowProduct


def merge_row_groups(model: onnx.ModelProto, products: Sequence[RowProduct]) -> onnx.ModelProto:
    """A copy of `model` with one matrix product per layer.

    Its weight is put together from the groups by nodes.
    """
    merged = onnx.ModelProto()
    merged.CopyFrom(model)
    graph = merged.graph
    makers = {output: node for node in graph.node for output in node.output}
    replaced: set[str] = set()
    at_node: dict[str, list[onnx.NodeProto]] = {}
    # a layer that is multiplied with several times has one weight
    whole: dict[tuple[str, ...], str] = {}
    for product in products:
        if _is_whole(product):
            continue
        nodes: list[onnx.NodeProto] = []
        if product.weights not in whole:
            nodes, tensors, whole[product.weights] = _one_weight(product)
            graph.initializer.extend(tensors)
        name = f"{product.y}/merged/MatMul"
        nodes.append(
            helper.make_node("MatMul", [product.x, whole[product.weights]], [product.y], name=name)
        )
        replaced |= _nodes_between(product, makers)
        at_node[makers[product.y].name] = nodes
    kept = [
        n
        for node in graph.node
        for n in at_node.get(node.name, [] if node.name in replaced else [node])
    ]
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    return merged


def _nodes_between(product: RowProduct, makers: dict[str, onnx.NodeProto]) -> set[str]:
    """Names of the nodes that lead from x and the weights to y."""
    found = set()
    values = [product.y]
    while values:
        value = values.pop()
        if value == product.x or value in product.weights or value not in makers:
            continue
        found.add(makers[value].name)
        values.extend(makers[value].input)
    return found


def _is_whole(product: RowProduct) -> bool:
    """One group, in order, without padding or offsets: it is one product already."""
    one = len(product.weights) == 1 and product.shapes[0][0] == product.inputs
    one = one and product.offsets == (None,)
    return one and np.array_equal(product.source, np.arange(product.shapes[0][1]))


def _one_weight(product: RowProduct) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], str]:
    """Nodes that put the groups' weights together, the constants that they take, and the name of
    the result.
    """
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []

    def constant(values: Sequence[int] | np.ndarray) -> str:
        array = np.asarray(values, np.int64)
        tensors.append(
            numpy_helper.from_array(array, f"{product.y}/merged/constant_{len(tensors)}")
        )
        return tensors[-1].name

    def add(op_type: str, *inputs: str, **attributes: Any) -> str:
        name = f"{product.y}/merged/{op_type}_{len(nodes)}"
        nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def with_offset(weight: str, offset: HalfOffset, shape: tuple[int, int]) -> str:
        rows, columns = shape
        by_block = add("Unsqueeze", offset.scale, constant([1]))
        blocks = [offset.blocks, rows // offset.blocks, columns]
        by_row = add("Reshape", add("Expand", by_block, constant(blocks)), constant(shape))
        return add("Add", add("Add", weight, weight), by_row)

    parts = []
    groups = zip(product.weights, product.shapes, product.offsets, strict=True)
    for stored, shape, offset in groups:
        weight = stored if offset is None else with_offset(stored, offset, shape)
        padded = shape[0] > product.inputs
        parts.append(
            add("Slice", weight, constant([0]), constant([product.inputs])) if padded else weight
        )
    whole = parts[0] if len(parts) == 1 else add("Concat", *parts, axis=1)
    width = sum(columns for _, columns in product.shapes)
    if (product.source == width).any():
        whole = add("Pad", whole, constant([0, 0, 0, 1]))
    if not np.array_equal(product.source, np.arange(width)):
        whole = add("Gather", whole, constant(product.source), axis=1)
    return nodes, tensors, whole
