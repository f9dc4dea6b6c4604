from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.quantization.layer import CODE_LIMITS
from qvla_offline.quantization.scheme import WHOLE_ROW, QuantizationScheme
from tests.qvla_offline.quantization.rows import codes_of, student_rows, weights


@settings(max_examples=60, deadline=None)
@given(weights, st.sampled_from([2, 3, 4, 8]), st.sampled_from(["float16", "float32"]))
def test_without_search_every_code_is_the_nearest_one_for_its_stored_scale(
    weight, bits, scale_dtype
):
    rows = codes_of(weight, bits, QuantizationScheme(16, False, scale_dtype))
    low, high = CODE_LIMITS[bits]
    grid = torch.arange(low, high + 1, 2 if bits == 2 else 1).float()
    scales = rows.scales.float().repeat_interleave(rows.inputs_per_scale, 1)[:, : weight.shape[1]]
    nearest = (weight.unsqueeze(-1) - grid * scales.unsqueeze(-1)).abs().amin(dim=-1)
    reached = (weight - rows.dequantize()).abs()
    assert torch.allclose(reached, nearest, rtol=1e-4, atol=1e-6 * float(weight.abs().max()))


@settings(max_examples=30, deadline=None)
@given(weights, st.sampled_from([4, 8]))
def test_quantizing_what_was_dequantized_changes_nothing_without_clipping(weight, bits):
    scheme = QuantizationScheme(clip_search=False, scale_dtype="float32")
    once = codes_of(weight, bits, scheme).dequantize()
    twice = codes_of(once, bits, scheme).dequantize()
    assert torch.allclose(once, twice, rtol=1e-5, atol=1e-7 * float(weight.abs().max()))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_one_scale_a_row_is_that_of_its_largest_weight(bits):
    weight = student_rows(5, 90)
    rows = codes_of(weight, bits, QuantizationScheme(WHOLE_ROW, False, "float32"))
    assert rows.scales.shape == (5, 1)
    largest = weight.abs().amax(dim=1) / CODE_LIMITS[bits][1]
    assert torch.allclose(rows.scales[:, 0], largest)
    assert (weight - rows.dequantize()).abs().max() <= rows.scales.max() * (1 + 1e-5)
