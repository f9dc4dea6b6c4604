from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.quantization.quantizer import quantize_layer, reconstruct_rows
from qvla_offline.quantization.scheme import QuantizationScheme
from tests.qvla_offline.quantization.rows import student_rows


def test_layer_with_mixed_bits_puts_every_row_back_in_its_place():
    weight = student_rows(7, 90)
    bits = np.array([16, 0, 2, 4, 8, 4, 0], dtype=np.uint8)
    layer = quantize_layer(weight, bits, QuantizationScheme(16))
    back = layer.dequantize()
    for row, width in enumerate(bits):
        alone = reconstruct_rows(weight[row : row + 1], int(width), QuantizationScheme(16))
        assert torch.equal(back[row : row + 1], alone)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 1.0]))
def test_replaced_rows_leave_the_layer_that_their_bits_would_have_made(seed, share):
    generator = np.random.default_rng(seed)
    weight = torch.from_numpy(generator.standard_normal((12, 40), dtype=np.float32))
    before, after = generator.choice([0, 2, 4, 8, 16], (2, 12))
    changed = np.flatnonzero(generator.random(12) < share)
    after = np.where(np.isin(np.arange(12), changed), after, before)
    index = torch.from_numpy(changed)
    scheme = QuantizationScheme(16)
    other = quantize_layer(weight[index], after[changed], scheme)
    found = quantize_layer(weight, before, scheme).with_rows(index, other)
    expected = quantize_layer(weight, after, scheme)
    assert {b: rows.tolist() for b, rows in found.rows.items()} == {
        b: r.tolist() for b, r in expected.rows.items()
    }
    assert set(found.codes) == set(expected.codes)
    assert torch.equal(found.dequantize(), expected.dequantize())
    assert torch.equal(found.float_rows, expected.float_rows)


def test_bits_of_a_row_count_codes_and_scales():
    scheme = QuantizationScheme(64)
    assert [scheme.row_bits(130, b) for b in (0, 2, 4, 8, 16)] == [
        0,
        260 + 48,
        520 + 48,
        1040 + 16,
        2080,
    ]
    layer = quantize_layer(student_rows(3, 130), [2, 8, 0], scheme)
    assert layer.nominal_bits() == 260 + 48 + 1040 + 16
    assert (
        sum(c.scales.numel() * c.scales.element_size() for c in layer.codes.values())
        == (48 + 16) / 8
    )
