from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from qvla_offline.datasets.observed import evenly


@given(total=st.integers(0, 500), count=st.integers(1, 500))
def test_one_of_each_equal_stretch_is_taken(total, count):
    chosen = evenly(total, count)
    if count >= total:
        assert chosen == list(range(total))
    else:
        stretches = [(index * total // count, (index + 1) * total // count) for index in range(count)]
        assert all(low <= index < high for index, (low, high) in zip(chosen, stretches, strict=True))


def test_equal_episodes_are_not_always_looked_at_in_the_same_phase():
    phases = {index % 50 for index in evenly(20 * 50, 20)}
    assert len(phases) == 20
    assert min(phases) < 5 < 45 < max(phases)


def test_no_count_takes_everything():
    assert evenly(4, None) == [0, 1, 2, 3]
