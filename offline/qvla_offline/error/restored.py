"""The tensors of a checkpoint with the quantization error in its weights, made as they are asked
for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor

from qvla_offline.quantization.quantizer import quantize_layer
from qvla_offline.quantization.scheme import QuantizationScheme


class RestoredTensors(Mapping[str, Tensor]):
    """Name -> tensor: float32 as it comes back from storage if a gate quantizes it, else as it is."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        layers: Mapping[str, np.ndarray],
        scheme: QuantizationScheme,
    ) -> None:
        """tensors: of the float checkpoint. layers: {module: bits [R]}."""
        self._tensors = tensors
        self._layers = layers
        self._scheme = scheme

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        module, _, kind = name.rpartition(".")
        if kind != "weight" or module not in self._layers:
            return tensor
        layer = quantize_layer(tensor.flatten(1), self._layers[module], self._scheme, name)
        return layer.dequantize().reshape(tensor.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
