"""Rows that are replaced while a policy is measured, the bias included, and put back."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from qvla_offline.blockwise.passes import Blockwise
from qvla_offline.quantization.clip_search import ClipSearch
from qvla_offline.quantization.quantizer import Quantizer
from qvla_offline.quantization.registry import QUANTIZERS
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.exact import measured_scores
from qvla_offline.sensitivity.joint import joint_errors
from qvla_offline.sensitivity.replacement import LayerState, put_rows


class Correcting(Quantizer):
    """A toy: the default's codes, and the sum of each row for its bias."""

    corrects_bias = True

    def __init__(self, scheme: QuantizationScheme) -> None:
        self.scheme = scheme

    def quantize(self, name, weight, bits, statistics):
        layer = ClipSearch(self.scheme).quantize(name, weight, bits, statistics)
        return replace(layer, bias_correction=weight.float().sum(dim=1))


@pytest.fixture
def toy(monkeypatch) -> QuantizationScheme:
    module = types.ModuleType("toy_quantizer")
    module.Correcting = Correcting
    monkeypatch.setitem(sys.modules, "toy_quantizer", module)
    monkeypatch.setitem(QUANTIZERS, "correcting", "toy_quantizer:Correcting")
    return QuantizationScheme(16, quantizer="correcting")


def quantized(scheme: QuantizationScheme, weight: torch.Tensor, bits: list[int]):
    return Correcting(scheme).quantize("w", weight, np.array(bits), None)


@pytest.mark.parametrize("with_bias", [True, False])
def test_a_layer_gets_the_correction_and_its_own_numbers_back(toy, with_bias):
    layer = nn.Linear(20, 4, bias=with_bias).requires_grad_(False)
    weight = layer.weight.clone()
    bias = None if layer.bias is None else layer.bias.clone()
    rows = torch.tensor([1, 3])
    state = LayerState.of(layer)
    put_rows(layer, rows, quantized(toy, weight[rows], [4, 0]))
    assert not layer.weight[3].any()
    assert torch.equal(layer.weight[[0, 2]], weight[[0, 2]])
    added = layer.bias - (torch.zeros(4) if bias is None else bias)
    assert added[[0, 2]].tolist() == [0.0, 0.0]
    assert torch.allclose(added[rows], weight[rows].sum(dim=1), atol=1e-6)
    state.put_back(layer)
    assert torch.equal(layer.weight, weight)
    assert layer.bias is None if bias is None else torch.equal(layer.bias, bias)


@pytest.mark.parametrize("with_bias", [True, False])
def test_measured_errors_include_the_correction(toy, with_bias):
    """One layer that is the whole policy: what rows of 0 bits change is known exactly."""
    torch.manual_seed(0)
    layer = nn.Linear(20, 3, bias=with_bias).requires_grad_(False)
    policy = Blockwise.resident(layer)
    samples = [torch.randn(1, 20) for _ in range(4)]
    lost = torch.cat([layer.weight @ sample[0] - layer.weight.sum(dim=1) for sample in samples])
    by_channel = lost.reshape(4, 3).square().mean(dim=0)
    layers = {"": np.array([0, 16, 0])}
    joint, _ = joint_errors(policy, {"": layer}, samples, layers, toy)
    assert joint[0] == pytest.approx(float(by_channel[[0, 2]].sum()), rel=1e-4)
    exact = measured_scores(policy, {"": layer}, samples, [("", 2, 0)], toy)
    assert exact[0] == pytest.approx(float(by_channel[2]), rel=1e-4)
    assert (layer.bias is not None) == with_bias
