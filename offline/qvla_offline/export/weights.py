"""The checkpoint as export reads it: a tensor or a quantized layer at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from qvla_offline.export.stored import StoredGraph
from qvla_offline.finite import require_finite, require_representable, warn_of_zeros
from qvla_offline.quantization.layer import QuantizedLayer
from qvla_offline.quantization.quantizer import (
    LayerStatistics,
    quantize_layer,
)
from qvla_offline.quantization.row_groups import quantize_to_tile
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.quantization.trained_scales import UNTRAINED, TrainedScales
from qvla_offline.rounding import Rounding
from qvla_ros.errors import QvlaError

NARROW = "export with compute_dtype float32, which holds it"
SIXTEEN_BITS = "give the layer 8 bits: its 16-bit rows are float16"


@dataclass(frozen=True)
class CheckpointWeights:
    """Weights by checkpoint name, quantized by `gates` when they are asked for.

    tensors: the state dict; it may load lazily, since each name is read once. gates: {target
    module: bits [R]}; a linear layer that is not among them keeps 16 bits. tile: row groups are
    filled up to multiples of it, see `promote_to_tile`; 1 promotes no row. progress: called with
    each linear layer's name. statistics: {module: its statistics}, for quantizers that need them.
    rounding: what float16 changes in the tensors that no gate names, and that were asked for.
    trained: scales and biases that take the place of the quantizer's.
    """

    tensors: Mapping[str, Tensor]
    gates: Mapping[str, np.ndarray]
    scheme: QuantizationScheme
    tile: int = 1
    progress: Callable[[str], None] | None = None
    statistics: Mapping[str, LayerStatistics] = field(default_factory=dict)
    rounding: Rounding = field(default_factory=Rounding)
    trained: TrainedScales = UNTRAINED

    def array(
        self, name: str, dtype: np.dtype | type[np.generic] = np.float32, fix: str = NARROW
    ) -> np.ndarray:
        """Tensor `name` in `dtype`; QvlaError unless it is finite, before and after.

        fix: if `dtype` is too narrow.
        """
        tensor = self._tensor(name).float()
        if np.dtype(dtype) == np.float16:
            require_representable(name, tensor, torch.float16, fix)
            self.rounding.add(tensor, tensor.half())
        return tensor.numpy().astype(dtype, copy=False)

    def _tensor(self, name: str) -> Tensor:
        """Tensor `name` in the checkpoint's own type; QvlaError unless it is there and finite."""
        if name not in self.tensors:
            raise QvlaError(
                "checkpoint",
                f"no tensor {name}",
                "every tensor of the model",
                "use a whole checkpoint",
            )
        tensor = self.tensors[name]
        require_finite(name, tensor)
        warn_of_zeros(name, tensor)
        return tensor

    def bias(
        self, module: str, dtype: np.dtype | type[np.generic] = np.float32
    ) -> np.ndarray | None:
        """[R] in `dtype`, or None where the layer has none."""
        return self.array(f"{module}.bias", dtype) if f"{module}.bias" in self.tensors else None

    def layer(self, module: str) -> QuantizedLayer:
        """The weight of `module`, a convolution flattened from its second dimension, quantized row
        by row.
        """
        if self.progress is not None:
            self.progress(module)
        name = f"{module}.weight"
        weight = self._tensor(name).flatten(1)
        if module not in self.gates:
            kept = quantize_layer(weight, np.full(len(weight), 16), QuantizationScheme(), name)
            self.rounding.add(weight, kept.float_rows)
            return kept
        layer = quantize_to_tile(
            weight, self.gates[module], self.scheme, self.tile, name, self.statistics.get(module)
        )
        require_representable(name, layer.float_rows, torch.float16, SIXTEEN_BITS)
        return self.trained.put_into(module, layer)


def parameters_in(graph: StoredGraph, tensors: Mapping[str, Tensor]) -> int:
    """Counts the checkpoint's numbers that the graph stands for, rows of 0 bits included."""
    in_layers = sum(len(layer.bits) * layer.inputs for layer in graph.layers.values())
    others = (
        math.prod(tensor.dims)
        for tensor in graph.model.graph.initializer
        if tensor.name.partition(".weight")[0] not in graph.layers
        and tensor.name.removesuffix(".float16") in tensors
    )
    return in_layers + sum(others)
