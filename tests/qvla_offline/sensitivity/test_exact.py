"""Which channels are measured exactly, and how an estimate is compared with the measurement."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qvla_offline.sensitivity.exact import agreement, spearman, stratified_choices, top_channels

BITS = (2, 4, 8)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=20),
)
def test_rank_correlation_is_scipys_ties_included(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, float).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        expected = stats.spearmanr(first, second).statistic
    found = spearman(first, second)
    if np.isnan(expected):
        assert found is None
    else:
        assert found == pytest.approx(expected, abs=1e-12)


@settings(max_examples=50)
@given(st.integers(0, 60), st.integers(0, 100), st.integers(1, 20))
def test_choices_are_spread_evenly_over_bit_widths_and_ranks(
    count: int, seed: int, rows: int
) -> None:
    """One choice is of each equal range of ranks.

    The first bit-widths take the remainder; there are no more choices than channels.
    """
    generator = np.random.default_rng(seed)
    scores = {"a": generator.random((3, rows)), "b": generator.random((3, 5))}
    channels = rows + 5
    choices = stratified_choices(scores, BITS, count, seed)
    by_bits = Counter(bits for _, _, bits in choices)
    for place, bits in enumerate(BITS):
        wanted = min(count // 3 + (1 if place < count % 3 else 0), channels)
        assert by_bits[bits] == wanted
        if not wanted:
            continue
        ranks = np.argsort(np.argsort(np.concatenate([scores["a"][place], scores["b"][place]])))
        own = sorted(
            int(ranks[channel + (rows if name == "b" else 0)])
            for name, channel, b in choices
            if b == bits
        )
        for rank, stratum in zip(own, np.array_split(np.arange(channels), wanted), strict=True):
            assert stratum[0] <= rank <= stratum[-1]


def test_the_ratio_is_the_median_of_measured_over_estimated_where_something_was_estimated() -> None:
    choices = [("a", channel, 4) for channel in range(4)]
    measured = np.array([2.0, 6.0, 10.0, 7.0])
    other_samples = np.array([9.0, 9.0, 9.0, 9.0])
    estimated = np.array([1.0, 2.0, 2.0, 0.0])
    assert agreement(choices, estimated, measured).ratio == 3.0
    assert agreement(choices, other_samples, measured, estimated).ratio == 3.0
    tiny = agreement(choices, estimated * 1e-12, measured)
    assert tiny.ratio == pytest.approx(3e12)  # small, and yet more than nothing


def test_top_channels_are_counted_over_all_layers_and_earlier_ones_win_ties() -> None:
    scores = {"a": np.array([[1.0, 5.0, 5.0]]), "b": np.array([[7.0, 5.0]])}
    assert top_channels(scores, (4,), 3) == [("b", 0, 4), ("a", 1, 4), ("a", 2, 4)]
    assert len(top_channels(scores, (4,), 99)) == 5
