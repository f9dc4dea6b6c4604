from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from qvla_offline.quantization.quantizer import quantize_layer
from qvla_offline.quantization.released import released_rtn
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError
from tests.qvla_offline.quantization.rows import student_rows

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "qvla_vectors.json").read_text())[
    "row_quant"
]


@pytest.mark.parametrize("bits", [0, 2, 3, 4, 8, 16])
def test_released_rounding_matches_the_reference_in_float32(bits):
    row = torch.tensor([VECTORS["row"]])
    expected = torch.tensor([VECTORS["proxy_fp32"][str(bits)]])
    assert torch.equal(released_rtn(row, bits), expected)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_released_injection_matches_the_reference_in_bfloat16(bits):
    row = torch.tensor([VECTORS["row"]], dtype=torch.bfloat16)
    expected = torch.tensor([VECTORS["inject_bf16"][str(bits)]])
    assert torch.equal(released_rtn(row, bits, floor=1e-8).float(), expected)


def test_released_rounding_refuses_one_bit():
    with pytest.raises(QvlaError, match="bits"):
        released_rtn(torch.ones(1, 4), 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [0, 2, 4, 8, 16])
def test_the_quantizer_gives_what_the_injection_script_writes(bits, dtype):
    weight = student_rows(9, 150).to(dtype)
    layer = quantize_layer(weight, [bits] * 9, QuantizationScheme(quantizer="released"))
    assert torch.equal(layer.dequantize().to(dtype), released_rtn(weight, bits, floor=1e-8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_row_of_zeros_comes_back_as_zeros(dtype):
    layer = quantize_layer(
        torch.zeros(3, 20).to(dtype), [2, 4, 8], QuantizationScheme(quantizer="released")
    )
    assert not layer.dequantize().any()


def test_three_values_do_not_fit_the_half_offset_container():
    scheme = QuantizationScheme(quantizer="released", two_bit_storage="int2")
    quantize_layer(student_rows(2, 20), [4, 8], scheme)
    with pytest.raises(QvlaError, match=r"scheme\.two_bit_storage"):
        quantize_layer(student_rows(2, 20), [4, 2], scheme)


def test_a_weight_that_is_no_number_is_named():
    weight = student_rows(2, 20)
    weight[0, 0] = float("nan")
    with pytest.raises(QvlaError, match=r"^a\.weight: got NaN"):
        quantize_layer(weight, [0, 4], QuantizationScheme(quantizer="released"), "a.weight")


def test_each_row_is_rounded_with_a_scale_of_its_own():
    weight = student_rows(5, 5) * 10.0 ** torch.arange(5)[:, None]
    for bits in (2, 4, 8, 15):
        found = released_rtn(weight, bits)
        for row in range(5):
            assert torch.equal(found[row : row + 1], released_rtn(weight[row : row + 1], bits))
        step = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
        assert ((found - weight).abs() <= 0.5001 * step).all()
