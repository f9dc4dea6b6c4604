"""One linear layer of mixed bit-widths as ONNX nodes: a MatMul per row group, then the rows put back in order.

    y = Gather(Concat(x @ W16, x @ DQ(W8), x @ DQ(W4)), order) + bias

0-bit rows have no weight: they read one zero column that is padded on. One Gather restores the order, unless the groups
already lie in channel order (a layer of one bit-width, most often). The bias is added once, last.

The permutation is not folded into the next layer's input columns yet. A fold is exact only if that layer's groups of
inputs (the blocks that share a scale) are drawn in the folded order too, in fake-quant as well as here. Until both do,
the graph equals the fake-quant checkpoint, and pays for the Gather.
"""

from __future__ import annotations

import numpy as np
from qvla_offline.export.graph import OPSET, OPSET_INT2, GraphBuilder, RowProduct
from qvla_offline.export.row_groups import RowGroup, row_groups
from qvla_offline.quantizers import QuantizedLayer


def opset_for(two_bit_storage: str) -> int:
    """The ONNX opset that the 2-bit container needs."""
    return OPSET_INT2 if two_bit_storage == "int2" else OPSET


def emit_linear(graph: GraphBuilder, x: str, name: str, layer: QuantizedLayer, bias: np.ndarray | None = None) -> str:
    """`x` [B, T, C] times the rows of `layer` [R, C], plus `bias` [R]: the value's name, shape [B, T, R].

    name: the checkpoint's module path; its weights become `{name}.weight.{container}` and `{...}.scale`.
    """
    groups = row_groups(layer)
    with graph.scope(name):
        if groups:
            y = _multiply_groups(graph, x, name, groups, layer.shape)
        else:  # nothing is left of the weight; multiplying keeps the leading shape of x, whatever it is at run time
            first = graph.op("Slice", x, graph.constant([0]), graph.constant([1]), graph.constant([-1]))
            y = graph.op("Mul", first, graph.constant(np.zeros(layer.shape[0])))
        return y if bias is None else graph.op("Add", y, graph.tensor(f"{name}.bias", bias.astype(graph.compute)))


def _multiply_groups(graph: GraphBuilder, x: str, name: str, groups: list[RowGroup], shape: tuple[int, int]) -> str:
    channels, inputs = shape
    weights = [_weight(graph, name, group) for group in groups]
    parts = [_multiply(graph, x, weight, name, group, inputs) for weight, group in zip(weights, groups, strict=True)]
    y = parts[0] if len(parts) == 1 else graph.op("Concat", *parts, axis=-1)
    width = sum(group.weight.shape[1] for group in groups)
    source = _source_columns(groups, channels, width)
    if (source == width).any():
        y = graph.op("Pad", y, graph.constant([0, 1]), graph.constant(0.0), graph.constant([-1]))
    if not np.array_equal(source, np.arange(width)):
        y = graph.op("Gather", y, graph.constant(source), axis=-1)
    if all(group.container != "int2" for group in groups):
        shapes = tuple(group.weight.shape for group in groups)
        graph.products.append(RowProduct(x, y, tuple(weights), shapes, inputs, source))
    return y


def _source_columns(groups: list[RowGroup], channels: int, width: int) -> np.ndarray:
    """int64 [channels]: the column of each output channel in the groups side by side; `width`, a zero one, if none."""
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
        return weight if graph.compute == np.float16 else graph.op("Cast", weight, to=graph.onnx_compute)
    scale = graph.tensor(_scale_name(name, group), group.scales.astype(graph.compute))
    blocks = {"axis": 1} if group.block is None else {"axis": 0, "block_size": group.block}
    return graph.op("DequantizeLinear", weight, scale, **blocks)


def _scale_name(name: str, group: RowGroup) -> str:
    return f"{name}.weight.{group.container}.scale"


def _multiply(graph: GraphBuilder, x: str, weight: str, name: str, group: RowGroup, inputs: int) -> str:
    if surplus := group.weight.shape[0] - inputs:
        x = graph.op("Pad", x, graph.constant([0, surplus]), graph.constant(0.0), graph.constant([-1]))
    y = graph.op("MatMul", x, weight)
    return y if group.container != "int2" else _restore_half_offset(graph, x, y, _scale_name(name, group), group)


def _restore_half_offset(graph: GraphBuilder, x: str, y: str, scale: str, group: RowGroup) -> str:
    """From x @ (stored * scale) to x @ ((2 * stored + 1) * scale); the ones give each block's sum of x by its scale."""
    x = graph.op("Reshape", x, graph.constant([0, 0, group.scales.shape[0], group.block]))
    sums = graph.op("ReduceSum", x, graph.constant([-1]), keepdims=0)
    return graph.op("Add", graph.op("Add", y, y), graph.op("MatMul", sums, scale))
