"""Writes one linear layer of mixed bit-widths as ONNX nodes.

There is a MatMul per row group; then the rows are put back in order.

    y = Gather(Concat(x @ W16, x @ DQ(W8), x @ DQ(W4)), order) + bias

0-bit rows have no weight: they read one zero column that is padded on. One Gather restores the
order, unless the groups already lie in channel order (a layer of one bit-width, most often). The
bias is added once, last.

The permutation is not folded into the next layer's input columns yet. A fold is exact only if that
layer's groups of inputs (the blocks that share a scale) are drawn in the folded order too, in
fake-quant as well as here. Until both do, the graph equals the fake-quant checkpoint, and pays for
the Gather.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from qvla_offline.export.graph import OPSET, OPSET_INT2, GraphBuilder
from qvla_offline.export.stored import HalfOffset, RowProduct, StoredGroup, StoredLinear
from qvla_offline.quantization.layer import QuantizedLayer
from qvla_offline.quantization.row_groups import RowGroup, row_groups


def opset_for(two_bit_storage: str) -> int:
    """The ONNX opset that the 2-bit container needs."""
    return OPSET_INT2 if two_bit_storage == "int2" else OPSET


def emit_linear(
    graph: GraphBuilder, x: str, name: str, layer: QuantizedLayer, bias: np.ndarray | None = None
) -> str:
    """`x` [B, T, C] times the rows of `layer` [R, C], plus `bias` [R]: the value's name, shape [B,
    T, R].

    name: the checkpoint's module path; its weights become `{name}.weight.{container}` and
    `{...}.scale`.
    """
    return multiply(graph, x, store_linear(graph, name, layer, bias))


def store_linear(
    graph: GraphBuilder, name: str, layer: QuantizedLayer, bias: np.ndarray | None = None
) -> StoredLinear:
    """Puts the weights of `layer` [R, C] and `bias` [R] into the graph; see emit_linear."""
    groups = row_groups(layer)
    bias = _corrected(bias, layer.bias_correction)
    with graph.scope(name):
        stored = tuple(
            StoredGroup(
                group.container,
                _weight(graph, name, group),
                (group.weight.shape[0], group.weight.shape[1]),
                _scale_name(name, group),
                0 if group.scales is None else group.scales.shape[0],
                group.block,
            )
            for group in groups
        )
        channels, inputs = layer.shape
        width = sum(group.shape[1] for group in stored)
        source = _source_columns(groups, channels, width)
        in_order = not groups or np.array_equal(source, np.arange(width))
        order = None if in_order else graph.constant(source)
        bias_name = (
            None if bias is None else graph.tensor(f"{name}.bias", bias.astype(graph.compute))
        )
    return StoredLinear(
        name, stored, inputs, layer.row_bits(), layer.nominal_bits(), source, order, bias_name
    )


def multiply(graph: GraphBuilder, x: str, layer: StoredLinear) -> str:
    """`x` [B, T, C] times the layer: the value's name, shape [B, T, R]."""
    with graph.scope(layer.name):
        if layer.groups:
            y = _multiply_groups(graph, x, layer)
        # nothing is left of the weight; multiplying keeps the leading shape of x, whatever it is at
        # run time
        else:
            first = graph.op(
                "Slice", x, graph.constant([0]), graph.constant([1]), graph.constant([-1])
            )
            y = graph.op("Mul", first, graph.constant(np.zeros(len(layer.source))))
        return y if layer.bias is None else graph.op("Add", y, layer.bias)


def _multiply_groups(graph: GraphBuilder, x: str, layer: StoredLinear) -> str:
    parts = [_multiply_group(graph, x, group, layer.inputs) for group in layer.groups]
    y = parts[0] if len(parts) == 1 else graph.op("Concat", *parts, axis=-1)
    if (layer.source == layer.width).any():
        y = graph.op("Pad", y, graph.constant([0, 1]), graph.constant(0.0), graph.constant([-1]))
    if layer.order is not None:
        y = graph.op("Gather", y, layer.order, axis=-1)
    weights = tuple(g.weight for g in layer.groups)
    shapes = tuple(g.shape for g in layer.groups)
    offsets = tuple(
        HalfOffset(g.scale, g.scales_per_column) if g.container == "int2" else None
        for g in layer.groups
    )
    graph.products.append(RowProduct(x, y, weights, shapes, offsets, layer.inputs, layer.source))
    return y


def _corrected(bias: np.ndarray | None, correction: Tensor | None) -> np.ndarray | None:
    """`bias` [R] with the layer's correction [R] added, float32.

    A bias of its own where there is none.
    """
    if correction is None:
        return bias
    added = correction.float().numpy()
    return added if bias is None else bias.astype(np.float32) + added


def _source_columns(groups: list[RowGroup], channels: int, width: int) -> np.ndarray:
    """int64 [channels]: the column of each output channel in the groups side by side.

    `width`, a zero one, if none.
    """
    source = np.full(channels, width)
    start = 0
    for group in groups:
        source[group.rows] = start + np.arange(len(group.rows))
        start += group.weight.shape[1]
    return source


def _weight(graph: GraphBuilder, name: str, group: RowGroup) -> str:
    """The group's weight in the compute dtype, [C', n']."""
    weight = graph.tensor(f"{name}.weight.{group.container}", group.weight)
    if group.scales is None:
        return (
            weight
            if graph.compute == np.float16
            else graph.op("Cast", weight, to=graph.onnx_compute)
        )
    scale = graph.tensor(_scale_name(name, group), group.scales.astype(graph.compute))
    blocks = {"axis": 1} if group.block is None else {"axis": 0, "block_size": group.block}
    return graph.op("DequantizeLinear", weight, scale, **blocks)


def _scale_name(name: str, group: RowGroup) -> str:
    return f"{name}.weight.{group.container}.scale"


def _multiply_group(graph: GraphBuilder, x: str, group: StoredGroup, inputs: int) -> str:
    if surplus := group.shape[0] - inputs:
        x = graph.op(
            "Pad", x, graph.constant([0, surplus]), graph.constant(0.0), graph.constant([-1])
        )
    y = graph.op("MatMul", x, group.weight)
    return y if group.container != "int2" else _restore_half_offset(graph, x, y, group)


def _restore_half_offset(graph: GraphBuilder, x: str, y: str, group: StoredGroup) -> str:
    """From x @ (stored * scale) to x @ ((2 * stored + 1) * scale).

    The ones give each block's sum of x by its scale.
    """
    assert group.block is not None  # two bits have a scale for each block
    x = graph.op("Reshape", x, graph.constant([0, 0, group.scales_per_column, group.block]))
    sums = graph.op("ReduceSum", x, graph.constant([-1]), keepdims=0)
    return graph.op("Add", graph.op("Add", y, y), graph.op("MatMul", sums, group.scale))
