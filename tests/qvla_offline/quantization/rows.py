"""Weights and schemes that the tests of the quantizers share."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

from qvla_offline.quantization.layer import RowCodes
from qvla_offline.quantization.quantizer import quantize_layer
from qvla_offline.quantization.scheme import QuantizationScheme


def student_rows(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.standard_t(4, (rows, columns)).astype(np.float32))


weights = st.builds(
    lambda rows, columns, seed, exponent: student_rows(rows, columns, seed) * 10.0**exponent,
    st.integers(1, 5),
    st.integers(1, 150),
    st.integers(0, 10_000),
    st.floats(-4, 3),
)
schemes = st.builds(
    QuantizationScheme,
    st.sampled_from([16, 64]),
    st.booleans(),
    st.sampled_from(["float16", "float32"]),
)


def codes_of(weight: torch.Tensor, bits: int, scheme: QuantizationScheme) -> RowCodes:
    """All rows of `weight` at 2, 4 or 8 bits, by the quantizer of the scheme."""
    return quantize_layer(weight, [bits] * len(weight), scheme).codes[bits]
