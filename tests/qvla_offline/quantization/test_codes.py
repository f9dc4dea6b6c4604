"""Codes and scales at the edges of their containers, whichever quantizer chooses them."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from qvla_offline.quantization.scheme import QuantizationScheme, require_exact_scales
from qvla_ros.errors import QvlaError
from tests.qvla_offline.quantization.rows import codes_of


@pytest.mark.parametrize(("bits", "codes"), [(2, {-3, -1, 1, 3}), (4, range(-7, 8))])
def test_a_ramp_takes_all_codes_that_fit_its_largest_magnitude(bits, codes):
    scheme = QuantizationScheme(256, quantizer="rtn")
    found = codes_of(torch.linspace(-1, 1, 256)[None], bits, scheme)
    assert set(found.codes.flatten().tolist()) == set(codes)
    eight = codes_of(torch.linspace(-1, 1, 2001)[None], 8, scheme)
    assert set(eight.codes.flatten().tolist()) == set(range(-127, 128))
    assert float(eight.scales) == pytest.approx(1 / 127, rel=1e-3)


def test_weights_on_the_grid_of_int4_come_back_as_they_are_the_lowest_code_included():
    weight = 0.5 * torch.arange(-8.0, 8.0)[None]
    found = codes_of(weight, 4, QuantizationScheme(16, scale_dtype="float32"))
    assert found.codes.tolist() == [list(range(-8, 8))]
    assert torch.allclose(found.dequantize(), weight, rtol=1e-5)


@pytest.mark.parametrize(
    ("scales", "compute", "exact"),
    [
        ("float16", "float16", True),
        ("float16", "float32", True),
        ("float32", "float32", True),
        ("float32", "float16", False),
    ],
)
def test_scales_of_float32_need_a_graph_that_computes_in_it(scales, compute, exact):
    with nullcontext() if exact else pytest.raises(QvlaError, match=r"^scheme\.scale_dtype"):
        require_exact_scales(QuantizationScheme(scale_dtype=scales), compute)
