"""A layer as codes and scales, with one bit-width per output channel.

Fake-quant and export both read it.
A layer's weights are computed from the codes and scales as stored, so that the numbers evaluated
are the numbers written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from qvla_offline.finite import require_finite, require_representable
from qvla_offline.quantization.scheme import QuantizationScheme

# the least and the largest code that a container of so many bits holds here
CODE_LIMITS = {2: (-3, 3), 3: (-4, 3), 4: (-8, 7), 8: (-127, 127)}


@dataclass(frozen=True)
class RowCodes:
    """Quantized rows: weight[r, c] = codes[r, c] * scales[r, c // inputs_per_scale].

    codes: int8 [R, C]; scales: float [R, G], always positive; bits: of CODE_LIMITS. The last group
    may be ragged.
    """

    codes: Tensor
    scales: Tensor
    bits: int
    inputs_per_scale: int

    def dequantize(self) -> Tensor:
        """Returns float32 [R, C], codes times stored scales: exact except for float32 rounding."""
        scales = self.scales.float().repeat_interleave(self.inputs_per_scale, dim=1)[
            :, : self.codes.shape[1]
        ]
        return self.codes.float() * scales


@dataclass(frozen=True)
class QuantizedLayer:
    """One layer split by bit-width.

    shape: (R, C). rows: {bits: int64 [n] output channels, ascending} for every bit-width present, 0
    and 16 included. codes: {bits: RowCodes of those rows} for 2 to 8. float_rows: the rows of
    16 bits as they are kept, [n16, C] float16 (or the checkpoint's own type). bias_correction:
    float32 [R] to be added to the layer's bias, None for none. input_scales: float32 [C]; the codes
    are of weights times these, for inputs divided by them (AWQ, SmoothQuant), None for ones.
    """

    shape: tuple[int, int]
    scheme: QuantizationScheme
    rows: dict[int, Tensor]
    codes: dict[int, RowCodes]
    float_rows: Tensor
    bias_correction: Tensor | None = None
    input_scales: Tensor | None = None

    def dequantize(self) -> Tensor:
        """Returns float32 [R, C], for inputs as they are; rows of 0 bits are zero."""
        weight = torch.zeros(self.shape, dtype=torch.float32, device=self.float_rows.device)
        for bits, codes in self.codes.items():
            weight[self.rows[bits]] = codes.dequantize()
        if 16 in self.rows:
            weight[self.rows[16]] = self.float_rows.float()
        return weight if self.input_scales is None else weight / self.input_scales

    def row_bits(self) -> np.ndarray:
        """int64 [R]: the bit-width of every output channel."""
        bits = np.zeros(self.shape[0], dtype=np.int64)
        for width, rows in self.rows.items():
            bits[rows.numpy()] = width
        return bits

    def with_rows(self, index: Tensor, other: QuantizedLayer) -> QuantizedLayer:
        """Returns this layer with the rows `index` replaced by all those of `other`, in order.

        index: int64, ascending.
        """
        assert self.input_scales is None  # as those of `other` may differ
        assert other.input_scales is None
        stays = torch.ones(self.shape[0], dtype=torch.bool)
        stays[index] = False
        rows = {}
        codes = {}
        kept = self.float_rows
        for b in sorted(set(self.rows) | set(other.rows)):
            own = self.rows.get(b, index[:0])
            new = other.rows.get(b, index[:0])
            staying = stays[own]
            joined = torch.cat([own[staying], index[new]])
            order = joined.argsort()
            if len(joined):
                rows[b] = joined[order]
            if b == 16:
                kept = torch.cat([self.float_rows[staying], other.float_rows])[order]
            elif b and len(joined):
                parts = [(self.codes.get(b), staying), (other.codes.get(b), slice(None))]
                there = [(part, which) for part, which in parts if part is not None]
                joint = [
                    torch.cat([getattr(p, name)[w] for p, w in there])[order]
                    for name in ("codes", "scales")
                ]
                codes[b] = replace(there[0][0], codes=joint[0], scales=joint[1])
        correction = self._correction_with(index, other)
        return QuantizedLayer(self.shape, self.scheme, rows, codes, kept, correction)

    def _correction_with(self, index: Tensor, other: QuantizedLayer) -> Tensor | None:
        if self.bias_correction is None and other.bias_correction is None:
            return None
        zero = torch.zeros(self.shape[0])
        correction = (zero if self.bias_correction is None else self.bias_correction).clone()
        correction[index] = zero[index] if other.bias_correction is None else other.bias_correction
        return correction

    def nominal_bits(self) -> int:
        """Bits of codes and scales together, 2-bit codes counted as 2."""
        return sum(
            rows.numel() * self.scheme.row_bits(self.shape[1], bits)
            for bits, rows in self.rows.items()
        )


def split_rows(
    name: str,
    weight: Tensor,
    bits: np.ndarray,
    scheme: QuantizationScheme,
    quantize_rows: Callable[[Tensor, int], RowCodes],
) -> QuantizedLayer:
    """Quantizes the rows of 2 to 8 bits by `quantize_rows(rows [n, C], bits)`.

    Rows of 16 bits become float16. This is for quantizers that treat every row alone. Raises
    QvlaError naming the tensor unless the rows of 16 bits fit float16.
    """
    rows = rows_by_bits(bits, weight.device)
    codes = {
        b: quantize_rows(rows_of(weight, index), b) for b, index in rows.items() if b in CODE_LIMITS
    }
    kept = weight[rows.get(16, torch.empty(0, dtype=torch.int64))].float()
    require_finite(name, kept)
    require_representable(
        name, kept, torch.float16, "give the layer 8 bits: its 16-bit rows are float16"
    )
    return QuantizedLayer((weight.shape[0], weight.shape[1]), scheme, rows, codes, kept.half())


def rows_by_bits(bits: np.ndarray, device: torch.device) -> dict[int, Tensor]:
    """Returns {bit-width: its rows int64 [n], ascending} for the widths in `bits` [R]."""
    return {int(b): torch.from_numpy(np.flatnonzero(bits == b)).to(device) for b in np.unique(bits)}


def rows_of(weight: Tensor, index: Tensor) -> Tensor:
    """Returns the rows `index` of `weight`; without a copy if they are all."""
    return weight if len(index) == len(weight) else weight[index]
