"""Quantizer `guided_gptq`: rounding that compensates where the actions feel it.

As `gptq`, with every input vector weighed by the squared gradient of the actions at the layer's
output there (GuidedQuant, arXiv 2505.07004): H = sum_t g_t^2 x_t x_t^T.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from qvla_offline.quantization.gptq import Gptq
from qvla_offline.quantization.quantizer import LayerStatistics


@dataclass(frozen=True)
class GuidedGptq(Gptq):
    """See Gptq; the Hessian is weighed by gradients."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradient_weighted_hessian"})

    def hessian(self, statistics: LayerStatistics) -> Tensor:
        """See Gptq."""
        assert statistics.gradient_weighted_hessian is not None
        return statistics.gradient_weighted_hessian
