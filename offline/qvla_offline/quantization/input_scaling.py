"""Rounds a layer whose inputs are scaled: codes of W diag(s), for inputs x / s.

In fake-quantized weights the scales are divided out again, which is exact up to float32. A bundle
would need one vector of C numbers a layer and the product x * (1 / s) in front of it, or s folded
into what makes x (a norm's gain, the rows of the layer before), as the papers do where they can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import Tensor

from qvla_offline.finite import require_finite
from qvla_offline.quantization.layer import CODE_LIMITS, QuantizedLayer, RowCodes, split_rows
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError


def quantize_scaled(
    name: str,
    weight: Tensor,
    bits: np.ndarray,
    scheme: QuantizationScheme,
    input_scales: Tensor,
    quantize_rows: Callable[[Tensor, int], RowCodes],
) -> QuantizedLayer:
    """Quantizes `weight` [R, C] times `input_scales` [C] by `split_rows`, and notes the scales."""
    require_finite(name, weight.float())
    layer = split_rows(name, weight.float() * input_scales, bits, scheme, quantize_rows)
    return replace(layer, input_scales=input_scales)


def has_codes(bits: np.ndarray) -> bool:
    """Whether a row of `bits` [R] is rounded to codes; without one there is nothing to scale."""
    return bool(np.isin(bits, list(CODE_LIMITS)).any())


def usable(name: str, statistic: Tensor | None, inputs: int) -> Tensor:
    """Returns a vector of statistics, float32 [C], its zeros lifted to a millionth of its largest.

    Zeros are inputs that never were anything else. All-zero inputs give ones. QvlaError unless
    there is one number an input.
    """
    assert statistic is not None  # quantize_layer has seen to it
    if statistic.shape != (inputs,):
        raise QvlaError(
            f"statistics of {name}",
            f"a vector of {list(statistic.shape)}",
            f"{[inputs]}, one number an input",
            "gather the statistics of this checkpoint with `qvla statistics`",
        )
    require_finite(f"statistics of {name}", statistic)
    values = statistic.float()
    largest = float(values.max())
    return values.clamp(min=1e-6 * largest) if largest > 0 else values + 1
