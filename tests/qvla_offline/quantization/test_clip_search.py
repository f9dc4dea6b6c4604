from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.quantization.clip_search import MOST_GAIN
from qvla_offline.quantization.layer import CODE_LIMITS
from qvla_offline.quantization.quantizer import reconstruct_rows
from qvla_offline.quantization.scheme import QuantizationScheme
from tests.qvla_offline.quantization.rows import codes_of, schemes, student_rows, weights


@settings(max_examples=60, deadline=None)
@given(weights, st.sampled_from([2, 4, 8]), schemes)
def test_codes_stay_in_range_and_scales_are_positive_and_finite(weight, bits, scheme):
    rows = codes_of(weight, bits, scheme)
    low, high = CODE_LIMITS[bits]
    assert rows.codes.min() >= low
    assert rows.codes.max() <= high
    assert rows.scales.shape == (weight.shape[0], scheme.scales_per_row(weight.shape[1], bits))
    assert torch.isfinite(rows.scales).all()
    assert (rows.scales > 0).all()
    assert bits != 2 or (rows.codes % 2 != 0).all()


def blocks_of(weight: torch.Tensor, bits: int, group_size: int) -> tuple[torch.Tensor, ...]:
    return weight.split(weight.shape[1] if bits == 8 else group_size, dim=1)


@settings(max_examples=60, deadline=None)
@given(weights, st.sampled_from([2, 4, 8]), st.sampled_from([16, 64]))
def test_clip_search_points_nearer_the_weights_and_keeps_their_gain(weight, bits, group_size):
    """Cosine no lower than without the search; <q, w> = <w, w> but for float16 and for groups that
    hardly fit.
    """
    found = [
        reconstruct_rows(weight, bits, QuantizationScheme(group_size, search))
        for search in (True, False)
    ]
    for w, searched, plain in zip(
        *(blocks_of(x, bits, group_size) for x in (weight, *found)), strict=True
    ):
        overlap = (searched * w).sum(dim=1) / w.square().sum(dim=1)
        resolved = w.abs().amax(dim=1) > 0.05  # below, the steps between float16 scales are coarse
        projections = [
            (x * w).sum(dim=1) / x.norm(dim=1).clamp(min=1e-30) for x in (searched, plain)
        ]
        assert (projections[0] >= projections[1] * (1 - 1e-5)).all()
        expected = (MOST_GAIN * (projections[0] / w.norm(dim=1).clamp(min=1e-30)).square()).clamp(
            max=1.0
        )
        assert torch.allclose(overlap[resolved], expected[resolved], atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(100, 400))
def test_error_of_a_row_falls_as_its_bits_rise(seed, columns):
    weight = student_rows(8, columns, seed)
    errors = [
        (reconstruct_rows(weight, bits, QuantizationScheme()) - weight).square().mean(dim=1)
        for bits in (0, 2, 4, 8, 16)
    ]
    for coarse, fine in itertools.pairwise(errors):
        assert (fine < coarse).all()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_zero_rows_come_back_as_zero(bits):
    back = reconstruct_rows(torch.zeros(3, 100), bits, QuantizationScheme())
    assert back.abs().max() <= 2**-24


def test_two_bits_on_normal_weights_reach_the_error_that_the_half_offset_grid_allows():
    weight = torch.from_numpy(
        np.random.default_rng(0).standard_normal((64, 4096)).astype(np.float32)
    )
    error = {
        b: float((reconstruct_rows(weight, b, QuantizationScheme(128)) - weight).square().mean())
        for b in (2, 4, 8)
    }
    assert error[2] < 0.135
    assert error[4] < 0.0105
    assert error[8] < 8e-5
