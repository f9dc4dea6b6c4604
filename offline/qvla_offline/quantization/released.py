"""Quantizer `released`: the rounding of the published QVLA scripts, kept for comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qvla_offline.finite import require_finite
from qvla_offline.quantization.layer import (
    CODE_LIMITS,
    QuantizedLayer,
    RowCodes,
    rows_by_bits,
    rows_of,
)
from qvla_offline.quantization.quantizer import LayerStatistics, Quantizer
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError

INJECTION_FLOOR = 1e-8  # of the largest magnitude of a row, as their injection script has it


@dataclass(frozen=True)
class Released(Quantizer):
    """The released injection: rounds each row in the dtype of the weight, with one scale.

    The scale has that dtype too. Rows of 16 bits stay as they are.
    """

    scheme: QuantizationScheme

    def quantize(
        self, name: str, weight: Tensor, bits: np.ndarray, statistics: LayerStatistics | None
    ) -> QuantizedLayer:
        """See Quantizer. The scale of a row stands for each of its groups of inputs."""
        require_finite(name, weight)
        rows = rows_by_bits(bits, weight.device)
        if 2 in rows and self.scheme.two_bit_storage == "int2":
            raise QvlaError(
                "scheme.two_bit_storage",
                "int2 with quantizer released, whose 2-bit codes are -1, 0 and 1",
                "int4, which holds them",
                "set two_bit_storage: int4",
            )
        codes = {b: self._codes(rows_of(weight, i), b) for b, i in rows.items() if b in CODE_LIMITS}
        kept = weight[rows.get(16, torch.empty(0, dtype=torch.int64))]
        return QuantizedLayer((weight.shape[0], weight.shape[1]), self.scheme, rows, codes, kept)

    def _codes(self, weight: Tensor, bits: int) -> RowCodes:
        columns = weight.shape[1]
        codes, scale = _rounded(weight, bits, INJECTION_FLOOR)
        groups = self.scheme.scales_per_row(columns, bits)
        per_scale = self.scheme.inputs_per_scale(columns, bits)
        # a row of zeros in float16 has scale 0, for which 0 / 0 is no number
        whole = codes.nan_to_num().to(torch.int8)
        return RowCodes(whole, scale.repeat(1, groups), bits, per_scale)


def released_rtn(weight: Tensor, bits: int, floor: float = 1e-6) -> Tensor:
    """Rounds to nearest as the released QVLA scripts do, per row, in the dtype of `weight` [R, C].

    Their sensitivity script calls it on float32 with floor 1e-6; their injection script on the
    checkpoint's own dtype with floor 1e-8 (in bfloat16 about an eighth of the codes differ). The
    scale is max|w| / (2^(bits-1) - 1), so 2 bits give the three values -m, 0 and m. One bit would
    divide by zero there, and is refused here.
    """
    if bits >= 16:
        return weight
    if bits <= 0:
        return torch.zeros_like(weight)
    if bits == 1:
        raise QvlaError(
            "bits", 1, "0 or 2 to 16", "drop 1 from --bits: the released rule divides by zero there"
        )
    codes, scale = _rounded(weight, bits, floor)
    return codes * scale


def _rounded(weight: Tensor, bits: int, floor: float) -> tuple[Tensor, Tensor]:
    """Returns codes [R, C] and scales [R, 1], both in the dtype of `weight`."""
    highest = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=floor) / highest
    return torch.clamp(torch.round(weight / scale), -highest - 1, highest), scale
