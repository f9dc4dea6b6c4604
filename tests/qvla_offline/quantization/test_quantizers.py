from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.quantization.quantizers import (
    CODE_LIMITS,
    MOST_GAIN,
    QuantizationScheme,
    quantize_layer,
    quantize_rows,
    reconstruct_rows,
    released_rtn,
)
from qvla_ros.errors import QvlaError

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "qvla_vectors.json").read_text())[
    "row_quant"
]


def student_rows(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.standard_t(4, (rows, columns)).astype(np.float32))


weights = st.builds(
    lambda rows, columns, seed, exponent: student_rows(rows, columns, seed) * 10.0**exponent,
    st.integers(1, 5),
    st.integers(1, 150),
    st.integers(0, 10_000),
    st.floats(-4, 3),
)
schemes = st.builds(
    QuantizationScheme,
    st.sampled_from([16, 64]),
    st.booleans(),
    st.sampled_from(["float16", "float32"]),
)


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


@settings(max_examples=60, deadline=None)
@given(weights, st.sampled_from([2, 4, 8]), schemes)
def test_codes_stay_in_range_and_scales_are_positive_and_finite(weight, bits, scheme):
    rows = quantize_rows(weight, bits, scheme)
    low, high = CODE_LIMITS[bits]
    assert rows.codes.min() >= low
    assert rows.codes.max() <= high
    assert rows.scales.shape == (weight.shape[0], scheme.scales_per_row(weight.shape[1], bits))
    assert torch.isfinite(rows.scales).all()
    assert (rows.scales > 0).all()
    assert bits != 2 or (rows.codes % 2 != 0).all()


@settings(max_examples=60, deadline=None)
@given(weights, st.sampled_from([2, 4, 8]), st.sampled_from(["float16", "float32"]))
def test_without_search_every_code_is_the_nearest_one_for_its_stored_scale(
    weight, bits, scale_dtype
):
    rows = quantize_rows(weight, bits, QuantizationScheme(16, False, scale_dtype))
    low, high = CODE_LIMITS[bits]
    grid = torch.arange(low, high + 1, 2 if bits == 2 else 1).float()
    scales = rows.scales.float().repeat_interleave(rows.inputs_per_scale, 1)[:, : weight.shape[1]]
    nearest = (weight.unsqueeze(-1) - grid * scales.unsqueeze(-1)).abs().amin(dim=-1)
    reached = (weight - rows.dequantize()).abs()
    assert torch.allclose(reached, nearest, rtol=1e-4, atol=1e-6 * float(weight.abs().max()))


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


@settings(max_examples=30, deadline=None)
@given(weights, st.sampled_from([4, 8]))
def test_quantizing_what_was_dequantized_changes_nothing_without_clipping(weight, bits):
    scheme = QuantizationScheme(clip_search=False, scale_dtype="float32")
    once = quantize_rows(weight, bits, scheme).dequantize()
    twice = quantize_rows(once, bits, scheme).dequantize()
    assert torch.allclose(once, twice, rtol=1e-5, atol=1e-7 * float(weight.abs().max()))


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
    assert torch.equal(found.float16_rows, expected.float16_rows)


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


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize(("value", "told"), [(float("nan"), "NaN"), (float("-inf"), "infinity")])
def test_a_broken_weight_is_named_and_not_taken_for_a_large_one(bits, value, told):
    weight = student_rows(3, 20)
    weight[1, 4] = value
    with pytest.raises(QvlaError, match=rf"^a\.weight: got {told}; expected finite numbers"):
        quantize_layer(weight, [bits] * 3, QuantizationScheme(), "a.weight")
    with pytest.raises(
        QvlaError, match=r"^a\.weight: got magnitudes up to .*; expected at most 65504"
    ):
        quantize_layer(student_rows(3, 20) * 1e6, [16] * 3, QuantizationScheme(), "a.weight")


def test_wrong_gate_length_unknown_bits_broken_weights_and_bad_schemes_are_refused():
    weight = student_rows(3, 20)
    with pytest.raises(QvlaError, match="row_bits"):
        quantize_layer(weight, [4, 4], QuantizationScheme())
    with pytest.raises(QvlaError, match="row_bits"):
        quantize_layer(weight, [4, 4, 5], QuantizationScheme())
    with pytest.raises(QvlaError, match="NaN"):
        quantize_rows(torch.tensor([[1.0, float("nan")]]), 4, QuantizationScheme())
    with pytest.raises(QvlaError, match="16-bit rows"):
        quantize_layer(weight * 1e6, [16, 16, 16], QuantizationScheme())
    for bad in ({"group_size": 48}, {"scale_dtype": "bfloat16"}, {"two_bit_storage": "int3"}):
        with pytest.raises(QvlaError, match="scheme"):
            QuantizationScheme(**bad)
