"""Rounding that compensates, for each row by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qvla_offline.quantization.clip_search import nearest_codes
from qvla_offline.quantization.gptq import inverse_factor
from qvla_offline.quantization.quantizer import LayerStatistics, quantize_layer
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError
from tests.qvla_offline.quantization.rows import student_rows

INPUTS = 90  # 5 groups of 16 and a ragged one
PLAIN = QuantizationScheme(16)
GPTQ = QuantizationScheme(16, quantizer="gptq")
GUIDED = QuantizationScheme(16, quantizer="guided_gptq")


def correlated_inputs(tokens: int = 400) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(INPUTS, INPUTS, generator=generator) * torch.logspace(0, -2, INPUTS)
    return torch.randn(tokens, INPUTS, generator=generator) @ mixed.T


def statistics(x: torch.Tensor, weights: torch.Tensor | None = None) -> LayerStatistics:
    weighted = x if weights is None else x * weights[:, None]
    return LayerStatistics(len(x), x.T @ x, x.mean(0), x.T @ weighted)


def output_error(layer, weight, x) -> float:
    return float(((layer.dequantize() - weight) @ x.T).square().sum())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_outputs_are_closer_than_without_compensation(bits):
    x = correlated_inputs()
    weight = student_rows(12, INPUTS)
    plain = quantize_layer(weight, [bits] * 12, PLAIN)
    compensated = quantize_layer(weight, [bits] * 12, GPTQ, statistics=statistics(x))
    assert output_error(compensated, weight, x) < 0.5 * output_error(plain, weight, x)
    same_weights = (compensated.dequantize() - weight).square().sum()
    assert same_weights > (plain.dequantize() - weight).square().sum()


@pytest.mark.parametrize("hessian", [torch.eye(INPUTS), torch.zeros(INPUTS, INPUTS)])
def test_with_independent_equal_inputs_there_is_nothing_to_compensate(hessian):
    weight = student_rows(5, INPUTS)
    for bits in (2, 4, 8):
        scales = quantize_layer(weight, [bits] * 5, PLAIN).codes[bits].scales
        found = quantize_layer(weight, [bits] * 5, GPTQ, statistics=LayerStatistics(1, hessian))
        assert torch.equal(found.codes[bits].scales, scales)
        width = INPUTS if bits == 8 else 16
        wide = scales.float().repeat_interleave(width, dim=1)[:, :INPUTS]
        nearest = nearest_codes(weight, wide, bits)
        assert torch.equal(found.codes[bits].codes.float(), nearest)


def test_codes_and_scales_are_those_of_the_error_feedback_written_out():
    x = correlated_inputs().double()
    hessian = x.T @ x
    weight = student_rows(1, INPUTS)
    layer = quantize_layer(weight, [8], GPTQ, statistics=LayerStatistics(400, hessian))
    order = hessian.diagonal().argsort(descending=True, stable=True)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(INPUTS, dtype=torch.float64)
    upper = torch.linalg.cholesky(torch.linalg.inv(damped[order][:, order]), upper=True)
    scale = float(layer.codes[8].scales[0, 0])
    left = weight[0].double()[order]
    expected = torch.zeros(INPUTS, dtype=torch.int8)
    for place in range(INPUTS):
        code = float(torch.clamp(torch.round(left[place] / scale), -127, 127))
        expected[order[place]] = int(code)
        left[place:] -= (left[place] - code * scale) / upper[place, place] * upper[place, place:]
    assert (layer.codes[8].codes[0] != expected).sum() <= 2  # float32 against float64


def test_guided_rounding_is_exact_where_the_actions_feel_it():
    x = correlated_inputs()
    felt = (torch.arange(len(x)) % 20 == 0).float()
    weight = student_rows(8, INPUTS)
    gathered = statistics(x, felt)
    guided = quantize_layer(weight, [2] * 8, GUIDED, statistics=gathered)
    plain = quantize_layer(weight, [2] * 8, GPTQ, statistics=gathered)
    important = x[felt > 0]
    assert output_error(guided, weight, important) < output_error(plain, weight, important)
    assert output_error(guided, weight, x) > output_error(plain, weight, x)


def test_an_input_that_is_always_zero_is_rounded_like_any_other():
    x = correlated_inputs()
    x[:, 3] = 0.0
    weight = student_rows(4, INPUTS)
    layer = quantize_layer(weight, [4] * 4, GPTQ, statistics=statistics(x))
    step = layer.codes[4].scales[:, 0].float()
    assert ((layer.dequantize()[:, 3] - weight[:, 3]).abs() <= 1.01 * step / 2 + 1e-6).sum() >= 3


def test_a_hessian_of_few_samples_is_damped_until_it_can_be_factored():
    row = torch.randn(1, INPUTS, generator=torch.Generator().manual_seed(1))
    upper = inverse_factor(row.T @ row)
    assert torch.isfinite(upper).all()
    assert (upper.diagonal() > 0).all()


@pytest.mark.parametrize(
    ("hessian", "found"),
    [
        (torch.full((INPUTS, INPUTS), float("nan")), "NaN"),
        (torch.full((INPUTS, INPUTS), 1e7).fill_diagonal_(1.0), "not positive definite"),
        (torch.eye(INPUTS - 1), f"shape {[INPUTS - 1] * 2}".replace("[", r"\[")),
    ],
)
def test_a_hessian_that_is_none_is_refused_by_its_layer(hessian, found):
    with pytest.raises(QvlaError, match=rf"of a\.weight: got .*{found}"):
        quantize_layer(
            student_rows(2, INPUTS), [4, 4], GPTQ, "a.weight", LayerStatistics(1, hessian)
        )


@pytest.mark.parametrize("scheme", [GPTQ, GUIDED])
def test_each_row_is_treated_alone(scheme):
    weight = student_rows(7, INPUTS)
    bits = np.array([16, 0, 2, 4, 8, 4, 0])
    gathered = statistics(correlated_inputs())
    layer = quantize_layer(weight, bits, scheme, statistics=gathered)
    assert layer.row_bits().tolist() == bits.tolist()
    for row, width in enumerate(bits):
        alone = quantize_layer(weight[row : row + 1], [width], scheme, statistics=gathered)
        assert torch.equal(layer.dequantize()[row], alone.dequantize()[0])
