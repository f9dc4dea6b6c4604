"""Puts quantized rows into a layer of the policy that is measured, and takes them out again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qvla_offline.checkpoints.targets import QuantizableLayer
from qvla_offline.quantization.layer import QuantizedLayer
from qvla_offline.sensitivity.hessian import flat_weight


@dataclass(frozen=True)
class LayerState:
    """A layer's numbers before anything is replaced. weight: [R, C]; bias: [R] or None."""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, module: QuantizableLayer) -> LayerState:
        """A copy of what `module` holds."""
        bias = module.bias
        return cls(flat_weight(module).clone(), None if bias is None else bias.detach().clone())

    def put_back(self, module: QuantizableLayer) -> None:
        """Gives `module` its numbers back, and takes a bias from it that it did not have."""
        flat_weight(module).copy_(self.weight)
        if self.bias is None:
            module.bias = None
        elif module.bias is not None:
            module.bias.detach().copy_(self.bias)


def put_rows(module: QuantizableLayer, rows: Tensor, quantized: QuantizedLayer) -> None:
    """Replaces the rows `rows` (int64 [n]) of `module` by those of `quantized`, in order.

    A correction of the bias is added to it; a layer without one gets a bias for it.
    """
    weight = flat_weight(module)
    weight[rows] = quantized.dequantize().to(weight.dtype)
    correction = quantized.bias_correction
    if correction is None:
        return
    if module.bias is None:
        module.bias = nn.Parameter(torch.zeros_like(weight[:, 0]), requires_grad=False)
    module.bias.detach()[rows] += correction.to(weight)
