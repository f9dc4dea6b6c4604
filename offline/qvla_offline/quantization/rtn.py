"""Quantizer `rtn`: rounds to nearest; the scale of a group keeps its largest magnitude."""

from __future__ import annotations

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

        def rounded(rows: Tensor, width: int) -> RowCodes:
            return quantize_rows(rows, width, self.scheme, name, ratios=(1.0,))

        return split_rows(name, weight, bits, self.scheme, rounded)
