"""Counting over pairs: the share of float's successes that is kept, and how sure it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_offline.compare.episodes import Episode, closed_loop_results, kept_interval
from qvla_offline.compare.starts import Start

OUTCOMES = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def episode(policy: str, suite: str, state: int, success: bool, steps: int = 80) -> Episode:
    return Episode(policy, Start(suite, 0, state), success, steps, 100.0, 0.01 * steps, 2)


def test_only_starts_that_float_has_run_too_are_counted() -> None:
    episodes = [
        episode("float", "a", 0, True),
        episode("float", "a", 1, False),
        episode("float", "b", 0, True),
        episode("low", "b", 0, True),
        episode("low", "a", 0, False),
        episode("low", "a", 1, True),
        episode("low", "b", 7, True),
    ]
    found = {(r.suite, r.policy): r for r in closed_loop_results(episodes, ["float", "low"])}
    low = found["all", "low"]
    assert (low.successes, low.trials, low.kept) == (2, 3, 1.0)
    assert (low.pairing.both, low.pairing.only_first, low.pairing.only_second) == (1, 1, 1)
    assert found["a", "low"].kept == 1.0
    assert found["b", "low"].trials == 1
    assert found["all", "float"].pairing.p_value == 1.0


def test_motion_is_compared_over_starts_that_both_solved() -> None:
    episodes = [
        episode("float", "a", 0, True, 80),
        episode("float", "a", 1, True, 60),
        episode("low", "a", 0, True, 88),
        episode("low", "a", 1, False, 220),
    ]
    low = closed_loop_results(episodes, ["float", "low"])[1]
    assert low.motion is not None
    assert low.motion_of_float is not None
    assert (low.motion.steps, low.motion_of_float.steps) == (88, 80)
    assert low.motion.path_length_m == pytest.approx(0.88)


def test_a_policy_without_episodes_has_nothing_to_show() -> None:
    low = closed_loop_results([episode("float", "a", 0, True)], ["float", "low"])[1]
    assert (low.trials, low.kept, low.motion) == (0, None, None)


@given(OUTCOMES)
def test_the_interval_holds_the_share_that_was_kept(outcomes: list[tuple[bool, bool]]) -> None:
    reference, own = np.array(outcomes).T
    interval = kept_interval(reference, own)
    if not reference.any():
        assert interval is None
    else:
        low, high = interval
        assert low <= own.sum() / reference.sum() <= high


def test_the_interval_is_that_of_a_bootstrap_over_pairs() -> None:
    """Against one that draws the pairs themselves."""
    generator = np.random.default_rng(1)
    reference = generator.random(200) < 0.8
    own = np.where(generator.random(200) < 0.95, reference, ~reference)
    drawn = generator.integers(0, 200, (20_000, 200))
    shares = own[drawn].sum(axis=1) / reference[drawn].sum(axis=1)
    expected = np.percentile(shares, [2.5, 97.5])
    np.testing.assert_allclose(kept_interval(reference, own), expected, atol=0.006)
    assert kept_interval(reference, reference) == (1.0, 1.0)
