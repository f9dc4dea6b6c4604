"""The checkpoint as export reads it: a tensor or a quantized layer at a time, with a record of what was taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from qvla_offline.export.row_groups import quantize_to_tile
from qvla_offline.quantizers import QuantizationScheme, QuantizedLayer, quantize_layer
from torch import Tensor

from qvla_ros.errors import QvlaError


@dataclass
class Weights:
    """Weights by checkpoint name, quantized by `gates` when they are asked for.

    tensors: the state dict; it may load lazily, since each name is read once. gates: {target module: bits [R]}; a
    linear layer that is not among them keeps 16 bits. tile: see `promote_to_tile`. bits: {target: bits as exported},
    filled as the layers are taken; so are target_weights (how many weights they have), nominal_bits (code and scale
    bits of the targets) and parameters (of all tensors taken). progress: called with each linear layer's name.
    """

    tensors: Mapping[str, Tensor]
    gates: Mapping[str, np.ndarray]
    scheme: QuantizationScheme
    tile: int = 8
    bits: dict[str, np.ndarray] = field(default_factory=dict)
    target_weights: int = 0
    nominal_bits: int = 0
    parameters: int = 0
    progress: Callable[[str], None] | None = None

    def array(self, name: str) -> np.ndarray:
        """float32 tensor `name`."""
        if name not in self.tensors:
            raise QvlaError("checkpoint", f"no tensor {name}", "every tensor of the model", "use a whole checkpoint")
        tensor = self.tensors[name]
        self.parameters += tensor.numel()
        return tensor.float().numpy()

    def bias(self, module: str) -> np.ndarray | None:
        """float32 [R], or None where the layer has none."""
        return self.array(f"{module}.bias") if f"{module}.bias" in self.tensors else None

    def layer(self, module: str) -> QuantizedLayer:
        """The weight of `module`, a convolution flattened from its second dimension, quantized row by row."""
        if self.progress is not None:
            self.progress(module)
        weight = torch.from_numpy(self.array(f"{module}.weight")).flatten(1)
        if module not in self.gates:
            return quantize_layer(weight, np.full(len(weight), 16), self.scheme)
        layer, self.bits[module] = quantize_to_tile(weight, self.gates[module], self.scheme, self.tile)
        self.target_weights += weight.numel()
        self.nominal_bits += layer.nominal_bits()
        return layer
