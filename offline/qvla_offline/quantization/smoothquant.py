"""Quantizer `smoothquant`: moves the range of activations into the weights, for comparison.

SmoothQuant (Xiao et al., arXiv 2211.10438, equation 4): s_j = max|x_j|^a / max|w_j|^(1 - a) with
a = 0.5, the inputs are divided by s and the weights multiplied. Weights are rounded to nearest. It
helps where activations are rounded too (`--activation_bits`): these are then rounded as x / s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from qvla_offline.quantization.input_scaling import has_codes, quantize_scaled, usable
from qvla_offline.quantization.layer import QuantizedLayer
from qvla_offline.quantization.quantizer import LayerStatistics, Quantizer
from qvla_offline.quantization.rtn import RoundToNearest, nearest
from qvla_offline.quantization.scheme import QuantizationScheme

STRENGTH = 0.5  # share of the range of the activations that the weights take over


@dataclass(frozen=True)
class SmoothQuant(Quantizer):
    """Scales the inputs of the layer, then takes the nearest code to each weight."""

    scheme: QuantizationScheme
    needs: ClassVar[frozenset[str]] = frozenset({"input_maximum"})
    scales_inputs: ClassVar[bool] = True

    def quantize(
        self, name: str, weight: Tensor, bits: np.ndarray, statistics: LayerStatistics | None
    ) -> QuantizedLayer:
        """See Quantizer."""
        if not has_codes(bits):
            return RoundToNearest(self.scheme).quantize(name, weight, bits, statistics)
        assert statistics is not None
        inputs = weight.shape[1]
        of_inputs = usable(name, statistics.input_maximum, inputs)
        of_weights = usable(name, weight.float().abs().amax(dim=0), inputs)
        scales = of_inputs**STRENGTH / of_weights ** (1 - STRENGTH)
        rounded = nearest(self.scheme, name)
        return quantize_scaled(name, weight, bits, self.scheme, scales, rounded)
