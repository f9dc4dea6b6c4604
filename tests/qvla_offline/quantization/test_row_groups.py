"""Sorting rows into containers: nothing narrowed, nothing lost, and bytes as predicted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.export.graph import packed_bytes
from qvla_offline.quantization.containers import container_of, group_bytes, promote_to_tile
from qvla_offline.quantization.quantizer import quantize_layer
from qvla_offline.quantization.row_groups import quantize_to_tile, row_groups
from qvla_offline.quantization.scheme import QuantizationScheme

BITS = st.lists(st.sampled_from([0, 2, 4, 8, 16]), min_size=1, max_size=60)
SCHEMES = st.sampled_from(
    [QuantizationScheme(), QuantizationScheme(group_size=16, two_bit_storage="int2")]
)


@settings(max_examples=50, deadline=None)
@given(BITS, st.sampled_from([1, 2, 8, 16]), SCHEMES, st.integers(0, 2**32 - 1))
def test_promotion_fills_the_tile_and_never_narrows_a_row(
    bits: list[int], tile: int, scheme: QuantizationScheme, seed: int
) -> None:
    error = np.random.default_rng(seed).random(len(bits))
    promoted = promote_to_tile(np.array(bits), error, tile, scheme)
    assert (promoted >= bits).all()
    containers = [container_of(int(b), scheme) for b in promoted]
    present = [c for c in ("float16", "int8", "int4", "int2", None) if c in containers]
    # only the narrowest may be ragged: nothing is left to promote into it
    for container in present[:-1]:
        assert containers.count(container) % tile == 0


def test_the_rows_with_the_largest_error_are_promoted() -> None:
    bits = np.array([8, 4, 4, 2, 0, 4])
    error = np.array([0.0, 1.0, 5.0, 9.0, 99.0, 2.0])
    promoted = promote_to_tile(bits, error, 2, QuantizationScheme())
    # row 3 of the int4 container to 8; then int4 lacks one: row 4
    assert promoted.tolist() == [
        8,
        4,
        4,
        8,
        4,
        4,
    ]


@settings(max_examples=25, deadline=None)
@given(BITS, st.integers(1, 150), SCHEMES)
def test_groups_hold_every_row_once_in_the_predicted_bytes(
    bits: list[int], inputs: int, scheme: QuantizationScheme
) -> None:
    layer = quantize_layer(torch.randn(len(bits), inputs), bits, scheme)
    groups = row_groups(layer)
    stored = np.concatenate([group.rows for group in groups]) if groups else np.empty(0)
    assert sorted(stored.tolist()) == np.flatnonzero(bits).tolist()
    for group in groups:
        scales = 0 if group.scales is None else group.scales.astype(np.float32).nbytes
        size = len(packed_bytes(group.weight)) + scales
        assert size == group_bytes(
            group.container, len(group.rows), inputs, scheme.group_size, scale_bytes=4
        )


@pytest.mark.parametrize("inputs", [16, 32, 64, 96, 128, 588])
def test_blocked_weights_have_whole_blocks_two_at_least_and_even_columns(inputs: int) -> None:
    (group,) = row_groups(quantize_layer(torch.randn(7, inputs), [4] * 7, QuantizationScheme()))
    assert group.weight.shape[0] == group.block * group.scales.shape[0] >= inputs
    assert group.weight.shape[1] == group.scales.shape[1] == 8
    assert group.scales.shape[0] >= 2 or inputs <= 16


def test_quantize_to_tile_reports_the_bits_it_used() -> None:
    weight = torch.randn(16, 64)
    layer = quantize_to_tile(weight, np.array([8] + [4] * 15), QuantizationScheme(), tile=8)
    assert {b: len(rows) for b, rows in layer.rows.items()} == {8: 8, 4: 8}
    assert np.bincount(layer.row_bits()).tolist() == [0, 0, 0, 0, 8, 0, 0, 0, 8]


@settings(max_examples=40, deadline=None)
@given(
    BITS,
    st.integers(1, 150),
    st.sampled_from([16, 32, 64]),
    st.sampled_from(["int4", "int2"]),
)
def test_what_the_groups_hold_is_the_layer_row_by_row(
    bits: list[int], inputs: int, group_size: int, storage: str
) -> None:
    """Codes times the scale of their block.

    An INT2 code k stands for the odd number 2 k + 1. Inputs that only make the last block whole
    have codes of any value, for they are fed zeros.
    """
    scheme = QuantizationScheme(group_size, two_bit_storage=storage)
    layer = quantize_layer(torch.randn(len(bits), inputs), bits, scheme)
    expected = layer.dequantize().numpy()
    for group in row_groups(layer):
        values = group.weight.astype(np.float32)[:inputs, : len(group.rows)]
        if group.container == "int2":
            values = 2 * values + 1
        if group.container == "int8":
            values = values * group.scales
        elif group.scales is not None:
            scales = np.repeat(group.scales, group.block, axis=0)[:inputs, : len(group.rows)]
            values = values * scales
        np.testing.assert_array_equal(values.T, expected[group.rows])


def test_the_rows_that_quantizing_hurts_most_fill_a_group_not_the_largest() -> None:
    """Row 1 is large and lies on the grid of 4 bits; row 2 is small and does not."""
    generator = np.random.default_rng(0)
    on_grid = 100.0 * torch.from_numpy(np.resize(np.arange(-7, 8), 64)).float()
    weight = torch.stack([torch.ones(64), on_grid, torch.from_numpy(generator.random(64)).float()])
    layer = quantize_to_tile(weight, np.array([8, 4, 4]), QuantizationScheme(16), tile=2)
    assert {b: rows.tolist() for b, rows in layer.rows.items()} == {4: [1], 8: [0, 2]}


def test_rows_of_a_group_lie_by_bits_then_by_channel_and_groups_from_wide_to_narrow() -> None:
    layer = quantize_layer(torch.randn(7, 32), [2, 4, 8, 2, 16, 4, 8], QuantizationScheme(16))
    found = [(group.container, group.rows.tolist()) for group in row_groups(layer)]
    assert found == [("float16", [4]), ("int8", [2, 6]), ("int4", [1, 5, 0, 3])]
