"""The checkpoint as export reads it: a tensor or a quantized layer at a time, with a record of what
was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from qvla_offline.finite import require_finite, require_representable
from qvla_offline.quantization.layer import QuantizedLayer
from qvla_offline.quantization.quantizer import quantize_layer
from qvla_offline.quantization.row_groups import quantize_to_tile
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError

NARROW = "export with compute_dtype float32, which holds it"
SIXTEEN_BITS = "give the layer 8 bits: its 16-bit rows are float16"


@dataclass
class Weights:
    """Weights by checkpoint name, quantized by `gates` when they are asked for.

    tensors: the state dict; it may load lazily, since each name is read once. gates: {target
    module: bits [R]}; a linear layer that is not among them keeps 16 bits. tile: see
    `promote_to_tile`. bits: {target: bits as exported}, filled as the layers are taken; so are
    target_weights (how many weights they have), nominal_bits (code and scale bits of the targets)
    and parameters (of all tensors taken). progress: called with each linear layer's name.
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

    def array(
        self, name: str, dtype: np.dtype | type[np.generic] = np.float32, fix: str = NARROW
    ) -> np.ndarray:
        """Tensor `name` in `dtype`; QvlaError unless it is finite, before and after. fix: if
        `dtype` is too narrow.
        """
        tensor = self._tensor(name).float()
        if np.dtype(dtype) == np.float16:
            require_representable(name, tensor, torch.float16, fix)
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
        self.parameters += tensor.numel()
        require_finite(name, tensor)
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
            return quantize_layer(weight, np.full(len(weight), 16), QuantizationScheme(), name)
        layer = quantize_to_tile(weight, self.gates[module], self.scheme, self.tile, name)
        require_representable(name, layer.float_rows, torch.float16, SIXTEEN_BITS)
        self.bits[module] = layer.row_bits()
        self.target_weights += weight.numel()
        self.nominal_bits += layer.nominal_bits()
        return layer
