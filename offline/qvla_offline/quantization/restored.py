"""Gives a checkpoint's tensors with the quantization error in them, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from qvla_offline.quantization.layer import QuantizedLayer
from qvla_offline.quantization.quantizer import LayerStatistics, quantize_layer, quantizer_of
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.quantization.trained_scales import UNTRAINED, TrainedScales
from qvla_ros.errors import QvlaError


@dataclass(frozen=True)
class RestoredTensors(Mapping[str, Tensor]):
    """Maps a name to its tensor: quantized and restored if a gate names its layer, else as it is.

    tensors: of the float checkpoint. layers: {target module: bits [R]}. dtype: of what is changed,
    None keeps the tensor's own. statistics: {target module: its statistics}, for the quantizers
    that need them. trained: scales and biases that take the place of the quantizer's.
    """

    tensors: Mapping[str, Tensor]
    layers: Mapping[str, np.ndarray]
    scheme: QuantizationScheme
    dtype: torch.dtype | None = None
    statistics: Mapping[str, LayerStatistics] = field(default_factory=dict)
    trained: TrainedScales = UNTRAINED

    def changes(self, name: str) -> bool:
        """Whether tensor `name` may differ from the checkpoint's."""
        module, _, kind = name.rpartition(".")
        corrects = module in self.trained.layers or quantizer_of(self.scheme).corrects_bias
        return module in self.layers and (kind == "weight" or (kind == "bias" and corrects))

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.tensors[name]
        if not self.changes(name):
            return tensor
        module, _, kind = name.rpartition(".")
        if kind == "weight":
            weight = self._layer(module).dequantize()
            return weight.reshape(tensor.shape).to(self.dtype or tensor.dtype)
        correction = self._bias_correction(module)
        added = 0 if correction is None else correction
        return (tensor.float() + added).to(self.dtype or tensor.dtype)

    def input_scales(self) -> dict[str, Tensor]:
        """{module: scales that its inputs are divided by}, of a quantizer that scales inputs."""
        if not quantizer_of(self.scheme).scales_inputs:
            return {}
        found = {m: self._layer(m).input_scales for m in self.layers if m in self.statistics}
        return {module: scales for module, scales in found.items() if scales is not None}

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors  # Mapping's own would read the tensor

    def _bias_correction(self, module: str) -> Tensor | None:
        if module in self.trained.layers:  # without quantizing the layer once more
            return self.trained.layers[module].bias_correction
        return self._layer(module).bias_correction

    def _layer(self, module: str) -> QuantizedLayer:
        name = f"{module}.weight"
        weight = self.tensors[name].flatten(1)
        statistics = self.statistics.get(module)
        layer = quantize_layer(weight, self.layers[module], self.scheme, name, statistics)
        layer = self.trained.put_into(module, layer)
        if layer.bias_correction is not None and f"{module}.bias" not in self.tensors:
            raise QvlaError(
                f"bias correction of {module}",
                "a layer without a bias",
                "a bias in the checkpoint's layout, which the original code reads",
                f"choose a quantizer other than {self.scheme.quantizer}, or export a bundle",
            )
        return layer
