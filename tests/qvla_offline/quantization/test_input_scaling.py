"""Quantizers that scale inputs: AWQ and SmoothQuant."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.quantization.quantizer import (
    LayerStatistics,
    quantize_layer,
    require_plain_inputs,
    require_rows_alone,
)
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError
from tests.qvla_offline.quantization.rows import student_rows

INPUTS = 90  # 5 groups of 16 and a ragged one
PLAIN = QuantizationScheme(16, quantizer="rtn")
AWQ = QuantizationScheme(16, quantizer="awq")
SMOOTH = QuantizationScheme(16, quantizer="smoothquant")
BOTH = pytest.mark.parametrize("scheme", [AWQ, SMOOTH])


def uneven_inputs(tokens: int = 300, seed: int = 0) -> torch.Tensor:
    """A few inputs are a hundred times as large as the others."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, INPUTS, generator=generator)
    x[:, ::17] *= 100.0
    return x


def statistics(x: torch.Tensor) -> LayerStatistics:
    size = x.abs()
    return LayerStatistics(
        len(x),
        x.T @ x,
        x.mean(dim=0),
        input_magnitude=size.mean(dim=0),
        input_maximum=size.amax(dim=0),
    )


def output_error(layer, weight, x) -> float:
    return float(((layer.dequantize() - weight) @ x.T).square().sum())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_awq_keeps_outputs_closer_where_some_inputs_are_large(bits):
    x = uneven_inputs()
    weight = student_rows(12, INPUTS)
    plain = quantize_layer(weight, [bits] * 12, PLAIN)
    scaled = quantize_layer(weight, [bits] * 12, AWQ, statistics=statistics(x))
    assert output_error(scaled, weight, x) < 0.5 * output_error(plain, weight, x)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([2, 3, 4, 8]))
def test_scaling_by_awq_is_never_worse_than_rounding_to_nearest(seed, bits):
    """Exponent 0 is tried too. Clips look at their group alone, so they may err."""
    x = uneven_inputs(100, seed)
    weight = student_rows(4, INPUTS, seed)
    plain = quantize_layer(weight, [bits] * 4, PLAIN)
    scaled = quantize_layer(weight, [bits] * 4, AWQ, statistics=statistics(x))
    assert output_error(scaled, weight, x) < 1.05 * output_error(plain, weight, x)


def test_smoothquant_gives_inputs_and_weights_equal_ranges():
    x = uneven_inputs()
    weight = student_rows(6, INPUTS)
    scales = quantize_layer(weight, [8] * 6, SMOOTH, statistics=statistics(x)).input_scales
    assert torch.allclose((x / scales).abs().amax(0), (weight * scales).abs().amax(0), rtol=1e-4)


@BOTH
def test_codes_are_of_scaled_weights_and_the_scales_are_divided_out(scheme):
    weight = student_rows(7, INPUTS)
    bits = [16, 0, 2, 3, 4, 8, 4]
    layer = quantize_layer(weight, bits, scheme, statistics=statistics(uneven_inputs()))
    assert layer.row_bits().tolist() == bits
    for width, rows in layer.rows.items():
        if width in layer.codes:
            restored = layer.codes[width].dequantize() / layer.input_scales
            assert torch.equal(layer.dequantize()[rows], restored)
    assert torch.allclose(layer.dequantize()[0], weight[0], rtol=1e-3, atol=1e-6)
    assert not layer.dequantize()[1].any()


@BOTH
def test_rows_without_codes_need_no_statistics(scheme):
    layer = quantize_layer(student_rows(2, INPUTS), [16, 0], scheme)
    assert layer.input_scales is None


@BOTH
@pytest.mark.parametrize("dead", [slice(0, 40), slice(None)])
def test_inputs_that_are_always_zero_leave_finite_weights(scheme, dead):
    x = uneven_inputs()
    x[:, dead] = 0.0
    weight = student_rows(5, INPUTS)
    weight[:, 50:60] = 0.0
    layer = quantize_layer(weight, [4] * 5, scheme, statistics=statistics(x))
    assert layer.dequantize().isfinite().all()
    assert not layer.dequantize()[:, 50:60].any()


@BOTH
def test_statistics_of_another_layer_are_refused(scheme):
    found = statistics(uneven_inputs()[:, :64])
    with pytest.raises(QvlaError, match=r"^statistics of a\.weight: got a vector of \[64\]; .*90"):
        quantize_layer(student_rows(2, INPUTS), [4, 4], scheme, "a.weight", found)


@BOTH
def test_statistics_that_are_not_finite_are_refused(scheme):
    x = uneven_inputs()
    x[3, 4] = np.nan
    with pytest.raises(QvlaError, match=r"^statistics of a\.weight: got NaN"):
        quantize_layer(student_rows(2, INPUTS), [4, 4], scheme, "a.weight", statistics(x))


@BOTH
def test_they_score_no_rows_and_go_into_no_bundle(scheme):
    with pytest.raises(QvlaError, match=r"^scheme\.quantizer: .* treats each row alone"):
        require_rows_alone(scheme)
    with pytest.raises(QvlaError, match=r"^scheme\.quantizer: .* inputs as they are"):
        require_plain_inputs(scheme)
    require_rows_alone(PLAIN)
    require_plain_inputs(PLAIN)
