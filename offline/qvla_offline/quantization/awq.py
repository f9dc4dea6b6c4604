"""Quantizer `awq`: activation-aware scaling, for comparison.

AWQ (Lin et al., arXiv 2306.00978, sections 3.2 and 5.1). Inputs of large mean magnitude m are
divided by s = m^a, and the weights that read them multiplied, so that these lose less in rounding
to nearest. Of 20 exponents a from 0 to 0.95 the layer takes the one of least error of its outputs,
||(Q(W s) / s - W) X||^2, over the calibration samples. Then the clip of each group is searched by
the same error, as the paper's code does.

Unlike there, codes are symmetric, as in all containers here, and every layer has scales of its own,
also those that no norm or layer before could take up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from qvla_offline.quantization.input_scaling import has_codes, quantize_scaled, usable
from qvla_offline.quantization.layer import QuantizedLayer, RowCodes
from qvla_offline.quantization.quantizer import LayerStatistics, Quantizer
from qvla_offline.quantization.rtn import RoundToNearest, nearest
from qvla_offline.quantization.scheme import QuantizationScheme

EXPONENTS = tuple(step / 20 for step in range(20))
CLIPS = tuple(1.0 - step / 20 for step in range(11))  # of a group's largest magnitude


@dataclass(frozen=True)
class Awq(Quantizer):
    """Scales the inputs of the layer, then rounds to nearest with the best clip of each group."""

    scheme: QuantizationScheme
    needs: ClassVar[frozenset[str]] = frozenset({"input_hessian", "input_magnitude"})
    scales_inputs: ClassVar[bool] = True

    def quantize(
        self, name: str, weight: Tensor, bits: np.ndarray, statistics: LayerStatistics | None
    ) -> QuantizedLayer:
        """See Quantizer."""
        if not has_codes(bits):
            return RoundToNearest(self.scheme).quantize(name, weight, bits, statistics)
        assert statistics is not None
        assert statistics.input_hessian is not None
        hessian = statistics.input_hessian.float()
        magnitude = usable(name, statistics.input_magnitude, weight.shape[1])
        scales = self._best_scales(name, weight.float(), bits, magnitude, hessian)
        of_scaled = hessian / torch.outer(scales, scales)

        def clipped(rows: Tensor, width: int) -> RowCodes:
            return _clipped(name, rows, width, self.scheme, of_scaled)

        return quantize_scaled(name, weight, bits, self.scheme, scales, clipped)

    def _best_scales(
        self, name: str, weight: Tensor, bits: np.ndarray, magnitude: Tensor, hessian: Tensor
    ) -> Tensor:
        """The input scales [C] of least error over EXPONENTS; 16-bit rows have none."""
        rounded = nearest(self.scheme, name)
        kept = np.where(bits == 16, 0, bits)
        least = float("inf")
        best = torch.ones_like(magnitude)
        for exponent in EXPONENTS:
            powers = magnitude**exponent
            scales = powers / (powers.max() * powers.min()).sqrt()
            layer = quantize_scaled(name, weight, kept, self.scheme, scales, rounded)
            wrong = (layer.dequantize() - weight)[kept > 0]
            loss = float(((wrong @ hessian) * wrong).sum())
            if loss < least:
                least = loss
                best = scales
        return best


def _clipped(
    name: str, rows: Tensor, bits: int, scheme: QuantizationScheme, hessian: Tensor
) -> RowCodes:
    """Codes and scales of `rows` [n, C]; each group takes the clip of least error of its own."""
    inputs = rows.shape[1]
    size = scheme.inputs_per_scale(inputs, bits)
    rounded = nearest(scheme, name)
    best = rounded(rows, bits)
    codes = best.codes.clone()
    scales = best.scales.clone()
    least = _group_errors(best.dequantize() - rows, hessian, size)
    for clip in CLIPS[1:]:
        limits = _group_limits(rows, size) * clip
        tried = rounded(rows.clamp(-limits, limits), bits)
        errors = _group_errors(tried.dequantize() - rows, hessian, size)
        better = errors < least
        least = torch.where(better, errors, least)
        scales = torch.where(better, tried.scales, scales)
        of_inputs = better.repeat_interleave(size, dim=1)[:, :inputs]
        codes = torch.where(of_inputs, tried.codes, codes)
    return RowCodes(codes, scales, bits, best.inputs_per_scale)


def _group_limits(rows: Tensor, size: int) -> Tensor:
    """The largest magnitude in each weight's group, [n, C]."""
    parts = [part.abs().amax(dim=1, keepdim=True).expand_as(part) for part in rows.split(size, 1)]
    return torch.cat(parts, dim=1)


def _group_errors(wrong: Tensor, hessian: Tensor, size: int) -> Tensor:
    """The error that each group of inputs makes by itself, [n, groups]: e^T H e over its inputs."""
    errors = []
    for start in range(0, wrong.shape[1], size):
        part = wrong[:, start : start + size]
        within = hessian[start : start + size, start : start + size]
        errors.append(((part @ within) * part).sum(dim=1))
    return torch.stack(errors, dim=1)
