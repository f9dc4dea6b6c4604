"""Quantizer `rtn`: rounds to nearest; the scale of a group keeps its largest magnitude."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from qvla_offline.quantization.clip_search import quantize_rows
from qvla_offline.quantization.layer import QuantizedLayer, RowCodes, split_rows
from qvla_offline.quantization.quantizer import LayerStatistics, Quantizer
from qvla_offline.quantization.scheme import QuantizationScheme


@dataclass(frozen=True)
class RoundToNearest(Quantizer):
    """Takes the nearest code to each weight; clips none."""

    scheme: QuantizationScheme

    def quantize(
        self, name: str, weight: Tensor, bits: np.ndarray, statistics: LayerStatistics | None
    ) -> QuantizedLayer:
        """See Quantizer."""
        return split_rows(name, weight, bits, self.scheme, nearest(self.scheme, name))


def nearest(scheme: QuantizationScheme, name: str) -> Callable[[Tensor, int], RowCodes]:
    """Returns the rounding of rows [n, C] at a bit-width to the nearest codes, clipping none.

    name: of the tensor, for errors.
    """

    def rounded(rows: Tensor, bits: int) -> RowCodes:
        return quantize_rows(rows, bits, scheme, name, ratios=(1.0,))

    return rounded
