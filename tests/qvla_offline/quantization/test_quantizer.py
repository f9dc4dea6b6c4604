from __future__ import annotations

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch

from qvla_offline.quantization.clip_search import quantize_rows
from qvla_offline.quantization.layer import split_rows
from qvla_offline.quantization.quantizer import (
    LayerStatistics,
    Quantizer,
    quantize_layer,
    quantizer_of,
    reconstruct_rows,
)
from qvla_offline.quantization.registry import QUANTIZERS
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError
from tests.qvla_offline.quantization.rows import student_rows


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("-inf"), "infinity")])
def test_a_broken_weight_is_named_and_not_taken_for_a_large_one(bits, value, word):
    weight = student_rows(3, 20)
    weight[1, 4] = value
    with pytest.raises(QvlaError, match=rf"^a\.weight: got {word}; expected finite numbers"):
        quantize_layer(weight, [bits] * 3, QuantizationScheme(), "a.weight")
    with pytest.raises(
        QvlaError, match=r"^a\.weight: got magnitudes up to .*; expected at most 65504"
    ):
        quantize_layer(student_rows(3, 20) * 1e6, [16] * 3, QuantizationScheme(), "a.weight")


def test_wrong_gate_length_unknown_bits_broken_weights_and_bad_schemes_are_refused():
    weight = student_rows(3, 20)
    with pytest.raises(QvlaError, match="row_bits"):
        quantize_layer(weight, [4, 4], QuantizationScheme())
    with pytest.raises(QvlaError, match=r"row_bits.* with \[5\] bit-widths"):
        quantize_layer(weight, [4, 4, 5], QuantizationScheme())
    with pytest.raises(QvlaError, match="NaN"):
        quantize_rows(torch.tensor([[1.0, float("nan")]]), 4, QuantizationScheme())
    with pytest.raises(QvlaError, match="16-bit rows"):
        quantize_layer(weight * 1e6, [16, 16, 16], QuantizationScheme())
    for bad in ({"group_size": 48}, {"scale_dtype": "bfloat16"}, {"two_bit_storage": "int3"}):
        with pytest.raises(QvlaError, match="scheme"):
            QuantizationScheme(**bad)


class Halves(Quantizer):
    """A toy: keeps nothing but halves of the weights, and corrects the bias by the mean input."""

    needs = frozenset({"input_mean"})
    corrects_bias = True

    def __init__(self, scheme: QuantizationScheme) -> None:
        self.scheme = scheme

    def quantize(self, name, weight, bits, statistics):
        layer = split_rows(name, weight / 2, bits, self.scheme, self._codes)
        lost = (weight - layer.dequantize()) @ statistics.input_mean
        return replace(layer, bias_correction=lost)

    def _codes(self, rows, width):
        return quantize_rows(rows, width, self.scheme)


@pytest.fixture
def toy(monkeypatch) -> QuantizationScheme:
    module = types.ModuleType("toy_quantizer")
    module.Halves = Halves
    monkeypatch.setitem(sys.modules, "toy_quantizer", module)
    monkeypatch.setitem(QUANTIZERS, "halves", "toy_quantizer:Halves")
    return QuantizationScheme(16, quantizer="halves")


def test_a_registered_quantizer_is_reached_by_its_name(toy):
    weight = student_rows(4, 20)
    statistics = LayerStatistics(samples=3, input_mean=torch.ones(20))
    layer = quantize_layer(weight, [16, 8, 4, 0], toy, statistics=statistics)
    assert torch.equal(layer.dequantize()[0], (weight[0] / 2).half().float())
    lost = (weight - layer.dequantize()).sum(dim=1)
    assert torch.allclose(layer.bias_correction, lost)
    assert torch.equal(layer.dequantize()[1], reconstruct_rows(weight, 8, toy, "", statistics)[1])


@pytest.mark.parametrize("statistics", [None, LayerStatistics(samples=3)])
def test_statistics_that_a_quantizer_needs_are_asked_for(toy, statistics):
    with pytest.raises(QvlaError, match=r"statistics of a\.weight: got no input_mean"):
        quantize_layer(student_rows(2, 20), [4, 4], toy, "a.weight", statistics)


def test_corrections_of_the_bias_follow_their_rows(toy):
    weight = student_rows(4, 20)
    statistics = LayerStatistics(samples=3, input_mean=torch.ones(20))
    index = torch.tensor([1, 3])
    plain = QuantizationScheme(16)
    corrected = quantize_layer(weight, [4] * 4, toy, statistics=statistics)
    part = quantize_layer(weight[index], [8, 8], toy, statistics=statistics)
    whole = quantize_layer(weight, [4, 8, 4, 8], toy, statistics=statistics)
    joined = corrected.with_rows(index, part)
    assert torch.allclose(joined.bias_correction, whole.bias_correction)
    without = corrected.with_rows(index, quantize_layer(weight[index], [8, 8], plain))
    assert without.bias_correction[index].tolist() == [0.0, 0.0]
    added = quantize_layer(weight, [4] * 4, plain).with_rows(index, part)
    assert torch.equal(added.bias_correction[index], part.bias_correction)
    assert added.bias_correction[[0, 2]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", list(QUANTIZERS))
def test_every_quantizer_treats_each_row_alone_or_says_that_it_scales_inputs(name):
    weight = student_rows(7, 90)
    bits = np.array([16, 0, 2, 4, 8, 3, 0])
    scheme = QuantizationScheme(16, quantizer=name)
    assert isinstance(quantizer_of(scheme), Quantizer)
    x = torch.randn(200, 90, generator=torch.Generator().manual_seed(0))
    size = x.abs()
    moments = (x.T @ x, x.mean(dim=0), x.T @ x)
    statistics = LayerStatistics(200, *moments, size.mean(dim=0), size.amax(dim=0))
    layer = quantize_layer(weight, bits, scheme, statistics=statistics)
    assert layer.row_bits().tolist() == bits.tolist()
    if quantizer_of(scheme).scales_inputs:
        assert layer.input_scales.shape == (90,)
        return
    for row, width in enumerate(bits):
        part = quantize_layer(weight[row : row + 1], [width], scheme, statistics=statistics)
        assert torch.equal(layer.dequantize()[row], part.dequantize()[0])
