from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.quantization import clip_search
from qvla_offline.quantization.clip_search import MOST_GAIN, nearest_codes, quantize_rows
from qvla_offline.quantization.layer import CODE_LIMITS
from qvla_offline.quantization.quantizer import reconstruct_rows
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError
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
    """Cosine no lower than without the search.

    <q, w> = <w, w> but for float16 and for groups that hardly fit.
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


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("chunk", [1, 90, 179, 180, 181])
def test_rows_do_not_depend_on_those_that_are_searched_with_them(monkeypatch, bits, chunk):
    weight = student_rows(5, 90)
    whole = quantize_rows(weight, bits, QuantizationScheme(16))
    monkeypatch.setattr(clip_search, "_CHUNK_WEIGHTS", chunk)
    found = quantize_rows(weight, bits, QuantizationScheme(16))
    assert torch.equal(found.codes, whole.codes)
    assert torch.equal(found.scales, whole.scales)


def test_the_scale_is_held_back_where_one_weight_is_far_from_all_others():
    """At 2 bits 15 small weights next to a large one: gain alone would ask for more."""
    weight = torch.full((1, 16), 0.1)
    weight[0, 3] = 8.0
    rows = quantize_rows(weight, 2, QuantizationScheme(16, scale_dtype="float32"))
    codes = rows.codes.float()
    least_squares = (codes * weight).sum() / codes.square().sum()
    gain = weight.square().sum() / (codes * weight).sum()
    assert gain > MOST_GAIN * least_squares
    assert rows.scales.item() == pytest.approx(MOST_GAIN * least_squares.item(), rel=1e-5)


@pytest.mark.parametrize(("bits", "low", "high"), [(2, -3, 3), (4, -8, 7), (8, -127, 127)])
def test_codes_reach_both_ends_of_their_range_and_halves_round_to_even(bits, low, high):
    far = torch.tensor([[-1e4, 1e4]])
    assert nearest_codes(far, torch.ones(1, 1), bits).tolist() == [[low, high]]
    between = {2: [-0.5, 0.0, 1.9, 2.0], 4: [0.5, 1.5, 2.4, -0.6], 8: [0.5, 1.5, 2.4, -0.6]}
    expected = {2: [-1, 1, 1, 3], 4: [0, 2, 2, -1], 8: [0, 2, 2, -1]}
    found = nearest_codes(torch.tensor([between[bits]]), torch.ones(1, 1), bits)
    assert found.tolist() == [expected[bits]]


def test_a_magnitude_beyond_the_scales_type_still_gets_a_finite_scale():
    rows = quantize_rows(torch.full((1, 16), 1e9), 2, QuantizationScheme(16))
    assert rows.scales.item() == torch.finfo(torch.float16).max
    assert rows.codes.tolist() == [[3] * 16]


@pytest.mark.parametrize("scale_dtype", ["float16", "float32"])
def test_a_group_of_zeros_has_the_smallest_positive_scale(scale_dtype):
    rows = quantize_rows(torch.zeros(1, 16), 4, QuantizationScheme(16, scale_dtype=scale_dtype))
    smallest = {"float16": 2.0**-24, "float32": 2.0**-126}[scale_dtype]
    assert rows.scales.item() == smallest
    assert not rows.codes.any()


@pytest.mark.parametrize("bits", [0, 1, 16])
def test_widths_without_codes_are_refused(bits):
    with pytest.raises(QvlaError, match=r"^bits: got .*quantize_layer"):
        quantize_rows(torch.zeros(1, 16), bits, QuantizationScheme(16))
