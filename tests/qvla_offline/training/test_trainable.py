"""A layer in training has the very numbers that its file will hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.quantization.quantizer import quantize_layer
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.training.trainable import TrainableLayer

BITS = np.array([0, 2, 4, 8, 16, 4, 2, 8])
COLUMNS = 40  # the last group of 16 is ragged


def layer(scale_dtype: str = "float16"):
    weight = torch.randn(len(BITS), COLUMNS, generator=torch.Generator().manual_seed(0))
    return quantize_layer(weight, BITS, QuantizationScheme(16, scale_dtype=scale_dtype))


def test_at_first_it_is_the_quantizer_s_layer():
    quantized = layer()
    trainable = TrainableLayer(quantized, has_bias=True)
    assert torch.equal(trainable.weight().detach(), quantized.dequantize())
    assert trainable.correction.tolist() == [0.0] * len(BITS)
    assert TrainableLayer(quantized, has_bias=False).correction is None


@settings(max_examples=40, deadline=None)
@given(
    size=st.floats(0.0, 60.0), seed=st.integers(0, 99), kind=st.sampled_from(["float16", "float32"])
)
def test_the_weight_in_training_is_the_weight_that_is_stored(size, seed, kind):
    quantized = layer(kind)
    trainable = TrainableLayer(quantized, has_bias=True)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for factors in trainable.factors.values():
            factors += size * torch.randn(factors.shape, generator=generator)
    stored = trainable.trained().put_into(quantized, "layer")
    assert torch.equal(trainable.weight().detach(), stored.dequantize())
    for bits, codes in stored.codes.items():
        assert codes.scales.dtype == quantized.codes[bits].scales.dtype
        assert (codes.scales > 0).all()
        assert codes.scales.isfinite().all()
        assert torch.equal(codes.codes, quantized.codes[bits].codes)


def test_gradients_of_the_factors_are_those_of_the_weight_without_rounding():
    trainable = TrainableLayer(layer("float32"), has_bias=False)
    given_ = torch.randn(len(BITS), COLUMNS, generator=torch.Generator().manual_seed(1))
    (trainable.weight() * given_).sum().backward()
    for bits, factors in trainable.factors.items():
        rows = trainable.layer.rows[bits]
        size = trainable.layer.codes[bits].inputs_per_scale
        share = (trainable.layer.codes[bits].dequantize() * given_[rows]).split(size, dim=1)
        expected = torch.stack([part.sum(dim=1) for part in share], dim=1)
        assert torch.allclose(factors.grad, expected, rtol=1e-4, atol=1e-5)


def test_scales_of_other_codes_are_refused():
    trained = TrainableLayer(layer(), has_bias=True).trained()
    other = quantize_layer(torch.ones(len(BITS), COLUMNS), BITS, QuantizationScheme(16))
    with pytest.raises(Exception, match="^some/file: some.layer.*other codes"):
        trained.put_into(other, "some/file: some.layer")
