"""A quantized layer whose codes stay and whose scales and bias can be trained."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from qvla_offline.checkpoints.targets import QuantizableLayer
from qvla_offline.quantization.layer import QuantizedLayer
from qvla_offline.quantization.trained_scales import TrainedLayer, codes_sha256


@dataclass
class TrainableLayer:
    """The parameters of one layer.

    factors: {bits: [n, G]}, logarithms of what the quantizer's scales are multiplied with, so that
    scales stay positive. correction: [R], added to the layer's bias; None for a layer without one.
    All are 0 at first, or the quantizer's own correction.
    """

    layer: QuantizedLayer
    factors: dict[int, Tensor] = field(init=False)
    correction: Tensor | None = field(init=False, default=None)

    def __init__(self, layer: QuantizedLayer, has_bias: bool) -> None:
        self.layer = layer
        self.factors = {
            bits: torch.zeros_like(codes.scales, dtype=torch.float32).requires_grad_()
            for bits, codes in layer.codes.items()
        }
        self.correction = None
        if has_bias:
            own = layer.bias_correction
            device = layer.float_rows.device
            start = torch.zeros(layer.shape[0], device=device) if own is None else own.clone()
            self.correction = start.requires_grad_()
        self._codes_sha256 = codes_sha256(layer)
        self._codes = {bits: codes.codes.float() for bits, codes in layer.codes.items()}
        self._others = torch.zeros(layer.shape, device=layer.float_rows.device)
        if 16 in layer.rows:
            self._others[layer.rows[16]] = layer.float_rows.float()

    def weight(self) -> Tensor:
        """Float32 [R, C], differentiable in the factors; its numbers are those of the file."""
        weight = self._others
        for bits, codes in self._codes.items():
            size = self.layer.codes[bits].inputs_per_scale
            scales = self._scales(bits).repeat_interleave(size, dim=1)[:, : codes.shape[1]]
            weight = weight.index_copy(0, self.layer.rows[bits], codes * scales)
        divided_by = self.layer.input_scales
        return weight if divided_by is None else weight / divided_by

    def lent_to(self, module: QuantizableLayer, name: str) -> dict[str, Tensor]:
        """Tensors in place of those of `module`, a Linear or Conv2d, by their names under `name`.

        For torch.func.functional_call.
        """
        found = {f"{name}.weight": self.weight().reshape(module.weight.shape)}
        if self.correction is not None and module.bias is not None:
            found[f"{name}.bias"] = module.bias + self.correction
        return found

    def trained(self) -> TrainedLayer:
        """What is to be stored of the layer as it is now."""
        scales = {
            bits: self._scales(bits).detach().to(self.layer.codes[bits].scales.dtype)
            for bits in self.factors
        }
        correction = None if self.correction is None else self.correction.detach().clone()
        return TrainedLayer(self._codes_sha256, scales, correction)

    def _scales(self, bits: int) -> Tensor:
        """Float32 [n, G]: rounded as they are stored; gradients pass the rounding unchanged."""
        own = self.layer.codes[bits].scales
        info = torch.finfo(own.dtype)
        smallest = info.smallest_normal * (info.eps if own.dtype == torch.float16 else 1.0)
        exact = (own.float() * self.factors[bits].exp()).clamp(smallest, info.max)
        # the difference is exact, and so is the sum
        return exact + (exact.to(own.dtype).float() - exact).detach()
