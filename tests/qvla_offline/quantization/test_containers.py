"""Blocks, bytes and promotions at their edges."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.quantization.containers import (
    block_layout,
    can_be_stored,
    container_of,
    group_bytes,
    layer_bytes,
    promote_to_tile,
    require_storable,
)
from qvla_offline.quantization.scheme import WHOLE_ROW, QuantizationScheme
from qvla_ros.errors import QvlaError

INT4 = QuantizationScheme(64)
INT2 = QuantizationScheme(64, two_bit_storage="int2")
CONTAINERS = ("float16", "int8", "int4", "int2", None)


@pytest.mark.parametrize(
    ("inputs", "group_size", "layout"),
    [
        (1, 64, (16, 1)),
        (16, 64, (16, 1)),
        (17, 64, (16, 2)),
        (32, 64, (16, 2)),
        (33, 64, (32, 2)),
        (64, 64, (32, 2)),
        (65, 64, (64, 2)),
        (128, 64, (64, 2)),
        (129, 64, (64, 3)),
        (16, 16, (16, 1)),
        (256, 256, (128, 2)),
    ],
)
def test_a_row_has_two_blocks_or_more_where_sixteen_inputs_allow(inputs, group_size, layout):
    assert block_layout(inputs, group_size) == layout


@pytest.mark.parametrize(
    ("widths", "scheme", "key"),
    [
        ((2, 3, 4), INT4, "bits"),
        ((4,), QuantizationScheme(WHOLE_ROW), r"scheme\.group_size"),
        ((0, 2, 4, 8, 16), INT2, None),
    ],
)
def test_what_no_engine_holds_is_refused_with_what_they_hold(widths, scheme, key):
    assert can_be_stored(widths, scheme) == (key is None)
    with pytest.raises(QvlaError, match=rf"^{key}: got .* engines hold") if key else nullcontext():
        require_storable(widths, scheme)
    if key == "bits":
        with pytest.raises(QvlaError, match="0, 2, 4, 8, 16"):
            container_of(3, scheme)


@pytest.mark.parametrize(
    ("container", "rows", "inputs", "size_bytes"),
    [
        ("float16", 3, 100, 2 * 3 * 100),
        ("int8", 3, 100, 3 * (100 + 4)),
        ("int4", 4, 128, 4 * 128 // 2 + 4 * 2 * 4),
        ("int4", 3, 128, 4 * 128 // 2 + 4 * 2 * 4),  # an odd row is padded to a pair
        ("int4", 2, 130, 2 * 192 // 2 + 2 * 3 * 4),  # a ragged block is made whole
        ("int2", 4, 128, 4 * 128 // 4 + 4 * 2 * 4),
    ],
)
def test_bytes_of_a_group_count_scales_and_padding(container, rows, inputs, size_bytes):
    assert group_bytes(container, rows, inputs, 64, scale_bytes=4) == size_bytes


def test_bytes_of_a_layer_are_those_of_its_groups():
    bits = np.array([0, 2, 4, 4, 8, 16])
    four = group_bytes("int4", 3, 128, 64, 2)
    eight = group_bytes("int8", 1, 128, 64, 2)
    whole = group_bytes("float16", 1, 128, 64, 2)
    assert layer_bytes(bits, 128, INT4, 2) == four + eight + whole
    split = group_bytes("int4", 2, 128, 64, 2) + group_bytes("int2", 1, 128, 64, 2)
    assert layer_bytes(bits, 128, INT2, 2) == split + eight + whole


@pytest.mark.parametrize(("scheme", "two"), [(INT4, "int4"), (INT2, "int2")])
def test_every_bit_width_has_its_container(scheme, two):
    found = [container_of(bits, scheme) for bits in (0, 2, 4, 8, 16)]
    assert found == [None, two, "int4", "int8", "float16"]


@pytest.mark.parametrize(
    ("scheme", "bits", "tile", "promoted"),
    [
        (INT4, [8, 8, 4, 4], 2, [8, 8, 4, 4]),  # full groups stay
        (INT4, [8, 4, 4, 4], 2, [8, 8, 4, 4]),  # of equal errors the first
        (INT4, [4, 2, 8, 0], 2, [8, 2, 8, 4]),  # 4 and 2 bits share a container: it gets one more
        (INT2, [4, 2, 2, 0], 2, [4, 4, 2, 2]),  # here they do not
        (INT4, [16, 0, 0, 0], 4, [16, 16, 16, 16]),
        (INT4, [16, 8], 4, [16, 16]),  # too few rows: all that there are
        (INT4, [0, 0, 0], 8, [0, 0, 0]),
        (INT4, [8, 4, 0], 1, [8, 4, 0]),
    ],
)
def test_short_groups_take_the_next_narrower_rows(scheme, bits, tile, promoted):
    found = promote_to_tile(np.array(bits), np.zeros(len(bits)), tile, scheme)
    assert found.tolist() == promoted


def test_the_next_narrower_group_gives_before_one_with_larger_errors():
    bits = np.array([16, 4, 8, 8])
    found = promote_to_tile(bits, np.array([0.0, 99.0, 1.0, 2.0]), 2, INT4)
    assert found.tolist() == [16, 8, 8, 16]


def test_containers_need_no_torch():
    code = "import qvla_offline.quantization.containers, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.integers(1, 1000), st.sampled_from([16, 32, 64, 128, 256]))
def test_a_block_is_the_largest_that_leaves_two_and_none_is_below_sixteen(
    inputs: int, group_size: int
) -> None:
    block, blocks = block_layout(inputs, group_size)
    smaller = [size for size in (16, 32, 64, 128, 256) if size <= group_size and size < inputs]
    assert block == max(smaller, default=16)
    assert (blocks - 1) * block < inputs <= blocks * block


def filled_up(bits: list[int], error: np.ndarray, tile: int, scheme: QuantizationScheme) -> list:
    """Promotes one row at a time, as the description has it.

    It takes the largest error of the next narrower group, the lower channel among equals.
    """
    found = list(bits)
    places = [CONTAINERS.index(container_of(b, scheme)) for b in found]
    for place, width in enumerate((16, 8, 4, 2)):
        while places.count(place) % tile and (below := [p for p in places if p > place]):
            candidates = [row for row, p in enumerate(places) if p == min(below)]
            row = max(candidates, key=lambda row: (error[row], -row))
            found[row] = width
            places[row] = place
    return found


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0, 2, 4, 8, 16]), st.integers(0, 3)), max_size=30),
    st.integers(1, 9),
    st.sampled_from([INT4, INT2]),
)
def test_groups_are_filled_one_row_after_the_other(
    rows: list[tuple[int, int]], tile: int, scheme: QuantizationScheme
) -> None:
    bits = [b for b, _ in rows]
    error = np.array([e for _, e in rows], float)
    found = promote_to_tile(np.array(bits, np.int64), error, tile, scheme)
    assert found.tolist() == filled_up(bits, error, tile, scheme)
