"""What a row costs, against the bytes of its codes and scales counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_offline.gates.costs import COSTS, Pricing
from qvla_offline.quantization.containers import container_of, group_bytes
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError

BITS = (0, 2, 4, 8, 16)
STORED = Pricing(QuantizationScheme(16), "stored")


def test_a_stored_row_costs_its_codes_and_a_scale_a_block_in_the_type_of_the_graph() -> None:
    """128 inputs in blocks of 16 have 8 scales a row at 2 and 4 bits, of 4 bytes or 2.

    A 2-bit code takes 4 bits unless the codes are packed.
    """
    assert [STORED.row_bits(128, b) for b in BITS] == [
        0,
        8 * (64 + 8 * 4),
        8 * (64 + 8 * 4),
        8 * (128 + 4),
        16 * 128,
    ]
    half = Pricing(QuantizationScheme(16), "stored", "float16")
    assert [half.row_bits(128, b) for b in (4, 8)] == [8 * (64 + 8 * 2), 8 * (128 + 2)]
    packed = Pricing(QuantizationScheme(16, two_bit_storage="int2"), "stored")
    assert packed.row_bits(128, 2) == 8 * (32 + 8 * 4)


@given(st.integers(1, 200), st.sampled_from(BITS[1:]), st.integers(1, 20))
def test_rows_cost_together_what_the_group_takes_in_the_graph(
    inputs: int, bits: int, pairs: int
) -> None:
    container = container_of(bits, STORED.scheme)
    assert container is not None
    whole = 8 * group_bytes(container, 2 * pairs, inputs, 16, 4)
    assert 2 * pairs * STORED.row_bits(inputs, bits) == whole


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 200)), min_size=1, max_size=4),
    st.integers(0, 1000),
    st.sampled_from(COSTS),
)
def test_bits_per_weight_are_the_bits_of_all_rows_over_all_weights(
    shapes: list[tuple[int, int]], seed: int, cost: str
) -> None:
    generator = np.random.default_rng(seed)
    pricing = Pricing(QuantizationScheme(16), cost)
    layers = {f"l{i}": generator.choice(BITS, rows) for i, (rows, _) in enumerate(shapes)}
    columns = {f"l{i}": width for i, (_, width) in enumerate(shapes)}
    spent = sum(pricing.row_bits(columns[n], int(b)) for n, row in layers.items() for b in row)
    weights = sum(rows * width for rows, width in shapes)
    assert pricing.bits_per_weight(layers, columns) == pytest.approx(spent / weights)


def test_unknown_costs_and_types_are_refused() -> None:
    with pytest.raises(QvlaError, match="^cost: got guessed"):
        Pricing(QuantizationScheme(), "guessed")
    with pytest.raises(QvlaError, match="^compute_dtype: got bfloat16"):
        Pricing(QuantizationScheme(), "stored", "bfloat16")
